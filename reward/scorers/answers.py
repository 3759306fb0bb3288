"""Checkable answers: a response is right or wrong by the known answer of its prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plumbline.data.numbers import result_of
from plumbline.data.reader import ExampleReader
from plumbline.data.records import Message, prompt_id
from plumbline.data.uses import USES
from plumbline.errors import DataError, ModelError
from plumbline.runs.calls import SourceFile
from plumbline.tables import Table

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Comparison:
    """A way of comparing a response with a known answer: a row of the table."""

    name: str
    agrees: Callable[[str, str], bool]
    """Maps a response and a known answer to whether the response gives that answer."""
    about: str


def exact(response: str, answer: str) -> bool:
    """Return whether the texts are equal but for case, spaces and the final full stop."""
    return _plain(response) == _plain(answer)


def numeric(response: str, answer: str) -> bool:
    """Return whether both come to the same number; `plumbline.data.numbers` says what that is."""
    value = result_of(response)
    return value is not None and value == result_of(answer)


def contains(response: str, answer: str) -> bool:
    """Return whether the answer stands in the response as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(_plain(answer))}(?!\w)", _plain(response)) is not None


COMPARISONS = Table(
    "way of comparing answers",
    [
        Comparison("exact", exact, "the same text, but for case, spaces and a final full stop"),
        Comparison("numeric", numeric, "the same number, exactly"),
        Comparison("contains", contains, "the answer stands in the response, in any case"),
    ],
    from_function=lambda name, function: Comparison(name, function, name),
)


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text)
    return _SPACE.sub(" ", text).strip().removesuffix(".").casefold()


class AnswerScorer:
    """1 for a response that gives one of its prompt's known answers, 0 for any other."""

    name = "answer"

    def __init__(self, answers: SourceFile | Path, compare: str = "exact") -> None:
        self.answers = KnownAnswers(answers)
        self._agrees = COMPARISONS[compare].agrees

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        return self.answers.problem_with(prompt)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return 1 or 0 per response."""
        return [
            float(any(self._agrees(response, answer) for answer in self.answers.to(prompt)))
            for prompt, response in zip(prompts, responses, strict=True)
        ]


class KnownAnswers:
    """The answers that prompts are known to have, from a file with references."""

    def __init__(self, file: SourceFile | Path) -> None:
        self._file = file.path if isinstance(file, SourceFile) else file
        self._by_prompt = _read(self._file)

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why a prompt has no known answer, in words that follow its name."""
        known = prompt_id(prompt) in self._by_prompt
        return None if known else f"has no answer in {self._file}"

    def to(self, prompt: Sequence[Message]) -> Sequence[str]:
        """Return the known answers to a prompt; raise `ModelError` where there is none."""
        answers = self._by_prompt.get(prompt_id(prompt))
        if answers is None:
            raise ModelError(
                f"The prompt {str(prompt[-1]['content'])[:80]!r} has no answer in {self._file}, so "
                "no response to it can be checked. Add it there, or leave the prompt out."
            )
        return answers


def _read(file: Path) -> Mapping[str, Sequence[str]]:
    reader = ExampleReader(file, USES["prompts"])
    answers = {
        prompt_id(row.example.prompt): row.example.references
        for row in reader
        if row.example.references
    }
    if not answers:
        raise DataError(
            f"{file} has no row with a prompt and a reference, so no answer could be checked. "
            f"Rows: {reader.report.rows}; left out: {reader.report.dropped.reasons() or 'none'}."
        )
    return answers
