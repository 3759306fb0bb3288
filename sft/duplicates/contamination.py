"""Decontamination: rows that hold what an evaluation asks.

As in Brown et al. (2020), appendix C: a row is contaminated where it shares a run of 13 words with
an evaluation's prompt. Runs that stand in many prompts are the evaluation's own wording and do not
count. A prompt of fewer words counts where a whole turn equals it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from plumbline.config import Check, not_in_identity
from plumbline.data.reader import DataFormatConfig, ExampleReader, check_first_rows
from plumbline.data.records import Row
from plumbline.data.sources import source_at
from plumbline.data.uses import USES
from sft.cleaning.step import Outcome, RowFunction, Step, StepConfig, StepContext, each, turns_of
from sft.duplicates.words import words_of


class ContaminationConfig(StepConfig):
    """Which evaluations must not be trained on."""

    step: Literal["contamination"] = "contamination"
    against: tuple[str, ...] = not_in_identity(..., min_length=1)
    """Files, folders or hub datasets of evaluation prompts, in any format of docs/formats.md."""
    run: int = Field(13, ge=2, le=100)
    """Words of a run that must not be shared; a Chinese or Japanese character counts as a word."""
    common: int = Field(10, ge=1)
    """A run that stands in more evaluation prompts than this is their common wording, and does not
    count."""
    references: bool = True
    """Whether the evaluation's reference answers count, too."""

    def identity(self) -> dict[str, Any]:
        """Return the values that determine the result: the content of the files among them."""
        digests = [source_at(place).digest() for place in self.against]
        return super().identity() | {"against": digests}

    def checks_before_work(self) -> Sequence[Check]:
        """Read the first rows of each evaluation."""
        return [
            partial(check_first_rows, "prompts", place, Path(), DataFormatConfig())
            for place in self.against
        ]


class Question(NamedTuple):
    """What an evaluation asks, and where it stands."""

    place: str
    text: str


class Index(NamedTuple):
    """The runs of evaluation prompts by their hash, and the short ones as a whole."""

    run: int
    runs: dict[int, int]
    """From the hash of a run to the number of its prompt."""
    whole: dict[int, int]
    """From the hash of all words of a short prompt to its number."""
    questions: Sequence[Question]


def index_of(questions: Sequence[Question], run: int, common: int) -> Index:
    """Return an index of evaluation prompts."""
    runs: dict[int, int] = {}
    whole: dict[int, int] = {}
    prompts_with: Counter[int] = Counter()
    for number, prompt in enumerate(questions):
        words = words_of(prompt.text)
        if len(words) < run:
            if words:
                whole.setdefault(_hash(words), number)
            continue
        hashes = set(_hashes(words, run))
        prompts_with.update(hashes)
        for value in hashes:
            runs.setdefault(value, number)
    few = {value: number for value, number in runs.items() if prompts_with[value] <= common}
    return Index(run, few, whole, questions)


class Hit(NamedTuple):
    """Where a text holds what an evaluation asks."""

    question: Question
    shared: str
    """The shared words."""


def find_hit(text: str, index: Index) -> Hit | None:
    """Return the first place where a text holds what an evaluation asks, or None."""
    words = words_of(text)
    for start, value in enumerate(_hashes(words, index.run)):
        number = index.runs.get(value)
        if number is not None:
            return Hit(index.questions[number], " ".join(words[start : start + index.run]))
    if words and len(words) < index.run and index.whole:
        number = index.whole.get(_hash(words))
        if number is not None:
            return Hit(index.questions[number], " ".join(words))
    return None


def read_questions(places: Sequence[str], *, references: bool) -> list[Question]:
    """Read what evaluations ask: the turns of their prompts, but for the system's."""
    questions = []
    for place in places:
        reader = ExampleReader(source_at(place), USES["prompts"])
        for entry in reader:
            where = f"{reader.report.origin}, {entry.place}"
            turns = [t["content"] for t in entry.example.prompt if t["role"] != "system"]
            questions += [Question(where, text) for text in turns]
            if references:
                questions += [Question(f"{where} (reference)", t) for t in entry.example.references]
    return questions


def _contamination(config: ContaminationConfig, _: StepContext) -> RowFunction:
    questions = read_questions(config.against, references=config.references)
    return each(partial(_not_in, index_of(questions, config.run, config.common)))


def _not_in(index: Index, row: Row) -> Outcome:
    for turn in turns_of(row):
        if turn["role"] == "system":
            continue
        hit = find_hit(turn["content"], index)
        if hit is not None:
            origin = hit.question.place.partition(",")[0]
            return Outcome(
                reason=f"holds what the evaluation {origin} asks",
                detail={
                    "evaluation": hit.question.place,
                    "prompt": hit.question.text[:500],
                    "shared": hit.shared,
                },
            )
    return Outcome((row,))


def _hashes(words: Sequence[str], run: int) -> list[int]:
    return [_hash(words[n : n + run]) for n in range(len(words) - run + 1)]


def _hash(words: Sequence[str]) -> int:
    """Return a hash of words that is the same in every process (XXH3, 64 bits)."""
    import xxhash

    return int(xxhash.xxh3_64_intdigest("\x1f".join(words).encode("utf-8", "surrogatepass")))


CONTAMINATION = Step(
    "contamination",
    "rows that hold what an evaluation asks, with the shared words",
    ContaminationConfig,
    _contamination,
    example={"against": ["data/benchmark.jsonl"]},
)
