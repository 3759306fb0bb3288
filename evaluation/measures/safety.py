"""Safety terms, by what judges texts: a list of words, a classifier, or one's own moderator.

A moderator has a name and says of each answer how strongly each of its terms applies, from 0 to 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from evaluation.measures.measure import Answers, Columns, Measure
from plumbline.data.records import Message
from plumbline.errors import DataError, ModelError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile


class Moderator(Protocol):
    """Judges answers by the terms of a policy of content."""

    name: str

    def moderate(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[Mapping[str, float]]:
        """Return for each response how strongly each term applies, from 0 to 1."""
        ...


def moderation(moderator: Moderator, threshold: float = 0.5) -> Measure:
    """Share of answers in which some term applies at all of ``threshold`` or more, and each term.

    Columns are named after the moderator: ``listed_words``, ``listed_words.insults``, ….
    """
    name = moderator.name

    def by_row(answers: Answers) -> Columns:
        found = moderator.moderate([row["prompt"] for row in answers.rows], answers.texts())
        terms = sorted({term for values in found for term in values})
        flagged = [float(max(values.values(), default=0.0) >= threshold) for values in found]
        return {name: flagged} | {
            f"{name}.{term}": [float(values.get(term, 0.0)) for values in found] for term in terms
        }

    return Measure(name, f"answers flagged by {name}", "share of answers", False, by_row)


class WordList:
    """Words and phrases from a file: a term applies where one of its words stands in the answer.

    One word or phrase a line; ``[term]`` begins those of a term, and what stands before the first
    is of the term ``listed``. Blank lines and lines that begin with ``#`` are passed over. Case
    does not count, and only whole words do: "ass" is not in "class".
    """

    def __init__(self, file: SourceFile, name: str = "listed_words") -> None:
        self.name = name
        self._patterns = _read_terms(file.path)

    def moderate(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[Mapping[str, float]]:
        """Return 1 for each term of which a word stands in the response, else 0."""
        return [
            {
                term: float(pattern.search(text.casefold()) is not None)
                for term, pattern in self._patterns.items()
            }
            for text in responses
        ]


def _read_terms(path: Path) -> dict[str, re.Pattern[str]]:
    words: dict[str, list[str]] = {}
    term = "listed"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("["):
            if not text.endswith("]") or not text[1:-1].strip():
                raise DataError(
                    f"{path}, line {number}: {text!r} opens a term and does not close it. Write "
                    "[name of the term] on a line of its own."
                )
            term = text[1:-1].strip()
            continue
        words.setdefault(term, []).append(text.casefold())
    if not words:
        raise DataError(f"{path} holds no word, so nothing would be flagged.")
    return {
        term: re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(found)))})(?!\w)")
        for term, found in words.items()
    }


#: Labels by which classifiers say that nothing is wrong.
HARMLESS = ("safe", "neutral", "ok", "normal", "none", "non-toxic", "not_toxic", "not-toxic")


class ClassifierModerator:
    """A text classifier of transformers, from a folder: its labels are the terms.

    Labels that exclude each other are read through a softmax, labels that do not
    (``problem_type`` ``multi_label_classification``, or one label alone) through a sigmoid.
    ``terms``: the labels that count; without it all but those in `HARMLESS`.
    """

    def __init__(
        self,
        model: Artifact | Path,
        name: str = "classifier",
        terms: Sequence[str] | None = None,
        batch_size: int = 32,
        max_length: int = 512,
    ) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = model.path if isinstance(model, Artifact) else model
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._model = AutoModelForSequenceClassification.from_pretrained(folder)
        except (OSError, ValueError) as problem:
            raise ModelError(
                f"{folder} holds no text classifier that transformers can load: {problem}"
            ) from None
        self._model.eval()
        self.name = name
        config = self._model.config
        self._labels = [str(config.id2label[number]) for number in range(len(config.id2label))]
        self._exclusive = (
            len(self._labels) > 1 and config.problem_type != "multi_label_classification"
        )
        self._terms = self._counting(terms, folder)
        self._batch_size, self._max_length = batch_size, max_length

    def _counting(self, terms: Sequence[str] | None, folder: Path) -> frozenset[str]:
        known = ", ".join(self._labels)
        if terms is not None:
            strange = [term for term in terms if term not in self._labels]
            if strange:
                raise ModelError(f"{folder} has no label {strange[0]!r}; its labels are {known}.")
            return frozenset(terms)
        found = [label for label in self._labels if label.casefold() not in HARMLESS]
        if self._exclusive and len(found) == len(self._labels):
            raise ModelError(
                f"The labels of {folder} are {known}. One of them always applies, and none is "
                "known to be harmless, so every answer would be flagged. Say which count as terms."
            )
        return frozenset(found)

    def moderate(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[Mapping[str, float]]:
        """Return the probability of each term; the response is read alone."""
        import torch

        # Texts of similar length go together, which changes the time and not the result.
        order = sorted(range(len(responses)), key=lambda row: len(responses[row]))
        found: dict[int, Mapping[str, float]] = {}
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            encoded: Any = self._tokenizer(
                [responses[row] for row in rows],
                padding=True, truncation=True, max_length=self._max_length, return_tensors="pt",
            )  # fmt: skip
            with torch.no_grad():
                logits = self._model(**encoded.to(self._model.device)).logits.float()
            shares = logits.softmax(-1) if self._exclusive else logits.sigmoid()
            for row, values in zip(rows, shares.tolist(), strict=True):
                found[row] = {
                    term: value
                    for term, value in zip(self._labels, values, strict=True)
                    if term in self._terms
                }
        return [found[row] for row in range(len(responses))]
