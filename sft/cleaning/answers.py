"""Steps on what the assistant says: text that repeats itself, refusals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from plumbline.data.records import Row
from sft.cleaning.step import Outcome, RowFunction, Step, StepConfig, StepContext, each, spoken_of
from sft.duplicates.words import words_of


class RepetitionConfig(StepConfig):
    """How much of an answer may repeat itself (Rae et al., 2021, arXiv 2112.11446, table A1)."""

    step: Literal["repetition"] = "repetition"
    max_repeated_lines: float = Field(0.3, ge=0, le=1)
    """Largest share of an answer's characters in lines that repeat an earlier line."""
    max_repeated_words: float = Field(0.3, ge=0, le=1)
    """Largest share of an answer's words in runs of ``run`` words that repeat an earlier run."""
    run: int = Field(5, ge=1, le=50)
    """Words of a run; a Chinese or Japanese character counts as a word."""
    min_words: int = Field(20, ge=1)
    """Shorter answers are not judged."""


def _repetition(config: RepetitionConfig, _: StepContext) -> RowFunction:
    def step(row: Row) -> Outcome:
        for text in spoken_of(row):
            words = words_of(text)
            if len(words) < config.min_words:
                continue
            if repeated_lines(text) > config.max_repeated_lines:
                return Outcome(reason="repeats its own lines", detail=text[:200])
            if repeated_words(words, config.run) > config.max_repeated_words:
                return Outcome(reason="repeats its own words", detail=text[:200])
        return Outcome((row,))

    return each(step)


REPETITION = Step(
    "repetition",
    "answers that repeat their own lines or runs of words",
    RepetitionConfig,
    _repetition,
)


def repeated_lines(text: str) -> float:
    """Return the share of a text's characters in lines that repeat an earlier line.

    Blank lines and white space do not count; a line of one or two characters (a bracket) is none.
    """
    lines = [line for line in map(str.strip, text.splitlines()) if len(line) > 2]
    total = sum(map(len, lines))
    first = sum(map(len, dict.fromkeys(lines)))
    return (total - first) / total if total else 0.0


def repeated_words(words: Sequence[str], run: int) -> float:
    """Return the share of words that stand in a run of words that repeats an earlier run.

    >>> repeated_words("a b c a b d".split(), 2)
    0.3333333333333333
    """
    seen: Counter[tuple[str, ...]] = Counter()
    inside = [False] * len(words)
    for start in range(len(words) - run + 1):
        gram = tuple(words[start : start + run])
        if seen[gram]:
            inside[start : start + run] = [True] * run
        seen[gram] += 1
    return sum(inside) / len(words) if words else 0.0


def _compiled(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return patterns


class RefusalsConfig(StepConfig):
    """Which answers are refusals."""

    step: Literal["refusals"] = "refusals"
    patterns: Annotated[tuple[str, ...], AfterValidator(_compiled)] = ()
    """Further regular expressions, beside those in English and Chinese; case makes no
    difference."""
    within: int = Field(200, ge=1)
    """Characters at the start of an answer that are looked at."""


#: How answers refuse, or call themselves a model.
REFUSALS_OF_MODELS = (
    r"\bI(?:'|’)?m (?:really |very |truly |so )?sorry,? (?:but |however,? )?(?:I|as an)\b",
    r"\bI(?: (?:can(?:'|’)?t|cannot|can not|won(?:'|’)?t|will not|am not able to|am unable to)|"
    r"(?:'|’)m (?:not able|unable) to) (?:assist|help|comply|fulfil|provide|do that|answer|"
    r"engage|support|continue|write|create|generate|discuss)\b",
    r"\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b",
    r"\bI(?:'|’)?m (?:just |only )?an? (?:AI|language model)\b",
    r"\bI (?:must|have to) decline\b",
    r"\bI do(?:n(?:'|’)t| not) feel comfortable\b",
    r"作为(?:一个|一名)?(?:人工智能|AI|语言模型)",
    r"(?:很抱歉|抱歉|对不起)[，,。]?.{0,8}(?:无法|不能|没有办法)",
    r"我(?:无法|不能)(?:协助|帮助|提供|回答|满足|完成)",
)


def _refusals(config: RefusalsConfig, _: StepContext) -> RowFunction:
    patterns = re.compile("|".join((*REFUSALS_OF_MODELS, *config.patterns)), re.IGNORECASE)
    return each(partial(_without_refusals, patterns, config.within))


def _without_refusals(patterns: re.Pattern[str], within: int, row: Row) -> Outcome:
    for text in spoken_of(row):
        match = patterns.search(text[:within])
        if match is not None:
            return Outcome(reason="refuses, or speaks as a model", detail=match[0])
    return Outcome((row,))


REFUSALS = Step(
    "refusals",
    "answers that refuse, or that call themselves a model, in English and Chinese",
    RefusalsConfig,
    _refusals,
)
