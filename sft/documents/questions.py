"""The stage that makes questions and answers of documents. This file only sequences.

A generator writes questions to sentences of the documents; a question's answer is its sentence,
word by word, so it cannot say what the document does not. That the question leads back to its
sentence is checked (round-trip consistency; Alberti et al., 2019, arXiv 1906.05416, ask a reader
model; here the generator's own probabilities and the words decide).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.data.records import Row, assistant, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive, rng
from sft.documents.checks import Checked, check_form, check_gain, first_of_equals
from sft.documents.config import QuestionsConfig
from sft.documents.document import Document
from sft.documents.generator import Generator, LocalGenerator
from sft.documents.readers import read_document
from sft.documents.slices import slices_of
from sft.documents.targets import Target, plain_words, starts_of, targets_of

DOUBTFUL = "doubtful.jsonl"
"""Beside the rows: questions for people to look at, each with its slice."""
CANDIDATES = "candidates.jsonl"
_TOGETHER = 8
"""Sentences that are worked on before the next ones are begun; a kill costs no more."""


class Candidate(NamedTuple):
    """A question to a target, and the outcome of its checks."""

    question: str
    checked: Checked
    gain: float | None


@stage("demonstrations")
def ask_documents(
    stage: Stage,
    *,
    config: QuestionsConfig,
    documents: Sequence[SourceFile],
    model: Artifact,
    data_seed: int,
) -> Mapping[str, float | None]:
    """Make questions and answers of documents; a stage that is killed resumes.

    The rows that are kept are the split ``train``; doubtful ones are in a file beside it.
    """
    # 1. Read the documents, and choose sentences to ask about.
    texts = [read_document(file.path) for file in documents]
    targets = choose_targets(texts, config, data_seed)
    if not targets:
        raise DataError(
            "No sentence of these documents can be asked about: sentences that stand alone and "
            "say something are needed. Lower questions.slices.min_characters, or give other files."
        )

    # 2. Write questions to each, and check them.
    journal = _Journal(stage.shards / CANDIDATES)
    generator = None
    with stage.bar("sentences", len(targets)) as bar:
        for number in range(0, len(targets), _TOGETHER):
            part = targets[number : number + _TOGETHER]
            if number not in journal.done:
                if generator is None:
                    generator = LocalGenerator(Policy.load(model.path), config.sampling)
                journal.add(number, best_of(part, generator, config, data_seed, number))
            bar.advance(len(part))

    # 3. Keep what passed; what repeats an earlier question is left out.
    best = [entry for number in sorted(journal.done) for entry in journal.done[number]]
    kept, doubtful, dropped = sort_out(best, targets, texts, config)
    stage.report_dropped(dropped)
    if not kept:
        raise DataError(
            f"None of {len(targets)} questions passed the checks: {dropped.reasons()}; "
            f"{len(doubtful)} are doubtful. Use a stronger model, or lower questions.checks.gain."
        )
    write_dataset(
        stage.folder,
        {"train": kept},
        kind="messages",
        title="Questions from documents",
        description="Questions that a model wrote to sentences of documents, and these sentences.",
        dropped=dropped,
    )
    with (stage.folder / DOUBTFUL).open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in doubtful)
    return {
        "documents": float(len(texts)),
        "sentences": float(len(targets)),
        "train_rows": float(len(kept)),
        "doubtful_rows": float(len(doubtful)),
        "dropped_rows": float(len(dropped)),
    }


def choose_targets(
    documents: Sequence[Document], config: QuestionsConfig, data_seed: int
) -> list[Target]:
    """Return the sentences to ask about, none of them twice."""
    chosen: dict[str, Target] = {}
    for number, document in enumerate(documents):
        for place, part in enumerate(slices_of(document, config.slices)):
            random = rng(data_seed, "sentences", document.name, place)
            for target in targets_of(number, document, part, config.sentences, random):
                chosen.setdefault(target.sentence, target)
    return list(chosen.values())


def best_of(
    targets: Sequence[Target],
    generator: Generator,
    config: QuestionsConfig,
    data_seed: int,
    number: int,
) -> list[Candidate]:
    """Write questions to each target, and return the best one of each.

    One that is kept is better than a doubtful one; of equals, the one that leads to its answer
    most surely.
    """
    many = config.questions
    sentences = [target.sentence for target in targets for _ in range(many)]
    starts = [start for target in targets for start in starts_of(target.sentence, many)]
    seeds = [derive(data_seed, "question", number, place) for place in range(len(sentences))]
    written = generator.questions(sentences, starts, seeds)
    checked = [
        check_form(question, sentence, config.checks)
        for question, sentence in zip(written, sentences, strict=True)
    ]
    open_ones = [n for n, entry in enumerate(checked) if entry.standing != "left_out"]
    gains = dict(
        zip(
            open_ones,
            generator.gains([written[n] for n in open_ones], [sentences[n] for n in open_ones]),
            strict=True,
        )
    )
    candidates = [
        Candidate(question, check_gain(entry, gains.get(n), config.checks), gains.get(n))
        for n, (question, entry) in enumerate(zip(written, checked, strict=True))
    ]
    order = ("left_out", "doubtful", "kept")
    return [
        max(
            candidates[at : at + many],
            key=lambda c: (order.index(c.checked.standing), c.gain or 0.0, c.checked.shared_words),
        )
        for at in range(0, len(candidates), many)
    ]


def sort_out(
    best: Sequence[Candidate],
    targets: Sequence[Target],
    documents: Sequence[Document],
    config: QuestionsConfig,
) -> tuple[list[Row], list[Row], Dropped]:
    """Return the rows that are kept, the doubtful ones, and those left out with the reason."""
    kept: list[Row] = []
    doubtful: list[Row] = []
    dropped = Dropped()
    passed = [n for n, entry in enumerate(best) if entry.checked.standing != "left_out"]
    repeats = dict(
        zip(
            passed,
            first_of_equals([best[n].question for n in passed], config.checks.duplicate),
            strict=True,
        )
    )
    for number, (entry, target) in enumerate(zip(best, targets, strict=True)):
        document = documents[target.document]
        row = row_of(entry, target, document, number + 1, config)
        if entry.checked.standing == "left_out":
            dropped.add(document.name, number + 1, entry.checked.reason, row)
        elif repeats[number] is not None:
            dropped.add(document.name, number + 1, "repeats an earlier question", row)
        elif entry.checked.standing == "doubtful":
            part = document.text[target.slice.start : target.slice.end]
            doubtful.append(row | {"reason": entry.checked.reason, "slice": part})
        else:
            kept.append(row)
    return kept, doubtful, dropped


def row_of(
    entry: Candidate, target: Target, document: Document, number: int, config: QuestionsConfig
) -> Row:
    """Return a question and its answer as a demonstration, with the place in the source."""
    question = entry.question
    if config.with_context:
        part = plain_words(document.text[target.slice.start : target.slice.end])
        question = f"{part}\n\n{question}"
    return {
        "messages": [user(question), assistant(target.sentence)],
        "form": "single_turn",
        "origin": document.name,
        "row": number,
        "headings": " > ".join(target.slice.headings),
        "page": document.page_of(target.start),
        "slice_start": target.slice.start,
        "slice_end": target.slice.end,
        "answer_start": target.start,
        "answer_end": target.end,
        "shared_words": round(entry.checked.shared_words, 4),
        "gain": None if entry.gain is None else round(entry.gain, 4),
    }


class _Journal:
    """What is done, appended to a file part by part; half a line, which a kill leaves, is cut."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: dict[int, list[Candidate]] = {}
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        for line in whole.splitlines():
            entry = json.loads(line)
            self.done[entry["number"]] = [_candidate(*held) for held in entry["best"]]

    def add(self, number: int, best: Sequence[Candidate]) -> None:
        """Keep a part; it is on the disk when this returns."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"number": number, "best": best}, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.done[number] = list(best)


def _candidate(question: str, checked: Sequence[Any], gain: float | None) -> Candidate:
    return Candidate(question, Checked(*checked), gain)
