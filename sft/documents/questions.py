"""The stage that makes questions and answers of documents. This file only sequences.

A generator writes questions to sentences of the documents; a question's answer is its sentence,
word by word, so it cannot say what the document does not. That the question leads back to its
sentence is checked (round-trip consistency; Alberti et al., 2019, arXiv 1906.05416, ask a reader
model; here the generator's own probabilities and the words decide).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.data.records import Row, as_json_lines, assistant, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.policy import Policy
from plumbline.lm.writer import EndpointWriter, WriterEndpointConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive, rng
from sft.documents.checks import (
    Checked,
    check_answer,
    check_form,
    check_gain,
    first_of_equals,
)
from sft.documents.config import QuestionsConfig
from sft.documents.document import Document, sentences
from sft.documents.generator import Generator, LocalGenerator, WriterGenerator
from sft.documents.readers import read_document
from sft.documents.slices import slices_of
from sft.documents.targets import Target, plain_words, targets_of

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
    reply: str = ""
    """The generator's own answer to it."""


@stage("demonstrations")
def ask_documents(
    stage: Stage,
    *,
    config: QuestionsConfig,
    documents: Sequence[SourceFile],
    data_seed: int,
    model: Artifact | None = None,
    endpoint: WriterEndpointConfig | None = None,
) -> Mapping[str, float | None]:
    """Make questions and answers of documents; a stage that is killed resumes.

    ``model`` or ``endpoint`` writes them. The rows that are kept are the split ``train``; doubtful
    ones are in a file beside it.
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
    best = write_questions(
        stage, targets, texts, config, data_seed, lambda: _generator(stage, config, model, endpoint)
    )

    # 3. Keep what passed; what repeats an earlier question is left out.
    kept, doubtful, dropped = sort_out(best, targets, texts, config)
    stage.report_dropped(dropped)
    if not kept:
        raise DataError(
            f"None of {len(targets)} questions passed the checks: {dropped.summary()}; "
            f"{len(doubtful)} are doubtful. Use a stronger model, or lower "
            "questions.checks.shared_words."
        )
    write_dataset(
        stage.folder,
        {"train": kept},
        kind="messages",
        title="Questions from documents",
        description="Questions that a model wrote to sentences of documents, and these sentences.",
        dropped=dropped,
    )
    (stage.folder / DOUBTFUL).write_text(as_json_lines(doubtful), encoding="utf-8")
    return {
        "documents": float(len(texts)),
        "sentences": float(len({target.sentence for target in targets})),
        "questions": float(len(targets)),
        "train_rows": float(len(kept)),
        "doubtful_rows": float(len(doubtful)),
        "dropped_rows": float(len(dropped)),
    }


def write_questions(
    stage: Stage,
    targets: Sequence[Target],
    documents: Sequence[Document],
    config: QuestionsConfig,
    data_seed: int,
    load: Callable[[], Generator],
) -> list[Candidate]:
    """Return the best question to each target; what a killed stage has done is not done again.

    ``load`` returns the generator, where one is needed.
    """
    journal, generator = _Journal(stage.shards / CANDIDATES), None
    with stage.bar("questions", len(targets)) as bar:
        for number in range(0, len(targets), _TOGETHER):
            part = targets[number : number + _TOGETHER]
            if number not in journal.done:
                generator = generator or load()
                slices = [slice_of(documents, target) for target in part]
                seeds = [
                    derive(data_seed, "question", number, place)
                    for place in range(len(part) * config.questions)
                ]
                journal.add(number, best_of(part, slices, generator, config, seeds))
            bar.advance(len(part))
    return [entry for number in sorted(journal.done) for entry in journal.done[number]]


def _generator(
    stage: Stage,
    config: QuestionsConfig,
    model: Artifact | None,
    endpoint: WriterEndpointConfig | None,
) -> Generator:
    """Return what writes the questions."""
    if model is not None:
        return LocalGenerator(Policy.load(model.path), config.sampling)
    assert endpoint is not None, "the recipe gives one of the two"
    stage.say(f"asks {endpoint.model} on {endpoint.where}")
    return WriterGenerator(EndpointWriter(endpoint, stage.cache))


def choose_targets(
    documents: Sequence[Document], config: QuestionsConfig, data_seed: int
) -> list[Target]:
    """Return the sentences to ask about, none of them twice."""
    chosen: dict[tuple[str, str], Target] = {}
    for number, document in enumerate(documents):
        for place, part in enumerate(slices_of(document, config.slices)):
            random = rng(data_seed, "sentences", document.name, place)
            for target in targets_of(number, document, part, config.sentences, random):
                chosen.setdefault((target.sentence, target.fit.form.start), target)
    return list(chosen.values())


def slice_of(documents: Sequence[Document], target: Target) -> str:
    """Return the words of a target's slice."""
    text = documents[target.document].text
    return plain_words(text[target.slice.start : target.slice.end])


def best_of(
    targets: Sequence[Target],
    texts: Sequence[str],
    generator: Generator,
    config: QuestionsConfig,
    seeds: Sequence[int],
) -> list[Candidate]:
    """Write questions to each target, and return the best one of each.

    One that is kept is better than a doubtful one; of equals, the one that says most of what its
    sentence is about and least else. The generator then answers the best ones from their slices,
    which are ``texts``.
    """
    many = config.questions
    each = [target for target in targets for _ in range(many)]
    written = generator.questions(
        [target.sentence for target in each], [target.fit.form for target in each], seeds
    )
    checked = [
        check_form(question, target.fit, config.checks)
        for question, target in zip(written, each, strict=True)
    ]
    gains = _gains(written, each, checked, generator, config)
    candidates = [
        Candidate(question, check_gain(entry, gains.get(n), config.checks), gains.get(n))
        for n, (question, entry) in enumerate(zip(written, checked, strict=True))
    ]
    order = ("left_out", "doubtful", "kept")
    best = [
        max(
            candidates[at : at + many],
            key=lambda c: (
                order.index(c.checked.standing),
                c.checked.shared_words,
                c.checked.named,
                c.gain or 0.0,
            ),
        )
        for at in range(0, len(candidates), many)
    ]
    return _answered(best, targets, texts, generator, config)


def _gains(
    questions: Sequence[str],
    targets: Sequence[Target],
    checked: Sequence[Checked],
    generator: Generator,
    config: QuestionsConfig,
) -> dict[int, float | None]:
    """Return the gains of the questions that are not left out, where the checks want them."""
    if config.checks.gain is None:
        return {}
    open_ones = [n for n, entry in enumerate(checked) if entry.standing != "left_out"]
    gains = generator.gains(
        [questions[n] for n in open_ones], [targets[n].fit.answer for n in open_ones]
    )
    return dict(zip(open_ones, gains, strict=True))


def _answered(
    best: Sequence[Candidate],
    targets: Sequence[Target],
    texts: Sequence[str],
    generator: Generator,
    config: QuestionsConfig,
) -> list[Candidate]:
    """Let the generator answer the questions that are not left out, and check its answers."""
    if config.checks.round_trip == 0:
        return list(best)
    open_ones = [n for n, entry in enumerate(best) if entry.checked.standing != "left_out"]
    replies = dict(
        zip(
            open_ones,
            generator.answers([best[n].question for n in open_ones], [texts[n] for n in open_ones]),
            strict=True,
        )
    )
    return [
        entry
        if n not in replies
        else entry._replace(
            reply=replies[n],
            checked=check_answer(
                entry.checked,
                entry.question,
                replies[n],
                targets[n].sentence,
                _other_sentences(texts[n], targets[n].sentence),
                config.checks,
            ),
        )
        for n, entry in enumerate(best)
    ]


def _other_sentences(text: str, sentence: str) -> list[str]:
    return [text[a:b] for a, b in sentences(text) if text[a:b] != sentence]


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
        part = slice_of([document], target._replace(document=0))
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
        "question_form": target.fit.form.start,
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


def _candidate(question: str, checked: Sequence[Any], gain: float | None, reply: str) -> Candidate:
    return Candidate(question, Checked(*checked), gain, reply)
