"""Checks of a question that a generator wrote: kept, doubtful or left out, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sft.documents.config import ChecksConfig
from sft.documents.document import content_words, is_chinese
from sft.documents.generator import EXAMPLE_WORDS

Standing = Literal["kept", "doubtful", "left_out"]
_ABOUT_THE_TEXT = re.compile(
    r"\b(?:sentence|passage|paragraph|the text|question|the answer|author|following|above)\b"
    r"|句子|段落|本文|问题|作者|上文",
    re.IGNORECASE,
)
_REPEATED = re.compile(r"\b(\w+(?: \w+){1,4})\b.*\b\1\b", re.IGNORECASE)
_REASON = re.compile(r"\b(?:because|since|so|as|due to|therefore|reason)\b|因为|由于|所以|因此")
_MEANS = re.compile(r"\b(?:by|using|with|through|via|need to|have to|must)\b|通过|用|需要|以")
#: A pronoun at the subject's place, with nothing in the question that it stands for.
_POINTS_BACK = re.compile(
    r"^\w+ (?:\w+ )?(?:is|are|does|do|did|can|was|were|if|when) "
    r"(?:it|they|this|that|these|those|he|she) (?!(?:\w+ )?(?:to|that|when|if)\b)",
)


class Checked(NamedTuple):
    """The outcome of the checks of a question."""

    standing: Standing
    reason: str
    """Why it is not kept, in words that continue "this question …"; empty where it is."""
    shared_words: float
    """Share of the question's words that its sentence has."""


def check_form(question: str, sentence: str, config: ChecksConfig) -> Checked:
    """Check a question by its words alone.

    A question whose words are mostly in its sentence asks about what stands there; one that has
    nearly all of them gives the answer away.
    """
    asked_words, sentence_words = content_words(question), set(content_words(sentence))
    shared = len(sentence_words & set(asked_words)) / max(1, len(set(asked_words)))
    copied = len(sentence_words & set(asked_words)) / max(1, len(sentence_words))
    longest = config.most_words * (2 if is_chinese(question) else 1)
    length = len(asked_words) if is_chinese(question) else len(question.split())
    problem = None
    if not question.endswith(("?", "？")):
        problem = "does not end with a question mark"
    elif not asked_words:
        problem = "asks about nothing"
    elif length > longest:
        problem = f"is longer than most_words ({config.most_words})"
    elif _ABOUT_THE_TEXT.search(question) and not _ABOUT_THE_TEXT.search(sentence):
        problem = "is about the text and not about what it says"
    elif question.startswith(("Why", "为什么")) and not _REASON.search(sentence):
        problem = "asks for a reason that its sentence does not give"
    elif question.startswith(("How", "怎样")) and not _MEANS.search(sentence):
        problem = "asks for a way that its sentence does not give"
    elif set(asked_words) & EXAMPLE_WORDS - sentence_words:
        problem = "repeats the examples that the generator was given"
    elif _POINTS_BACK.search(question):
        problem = "means something that it does not name"
    elif _REPEATED.search(question):
        problem = "repeats itself"
    elif copied > config.most_copied:
        problem = "has nearly all words of its answer"
    elif shared < config.doubtful_words:
        problem = "asks about what its sentence does not say"
    if problem is not None:
        return Checked("left_out", problem, shared)
    if shared < config.shared_words:
        return Checked("doubtful", "asks partly about what its sentence does not say", shared)
    return Checked("kept", "", shared)


def check_gain(form: Checked, gain: float | None, config: ChecksConfig) -> Checked:
    """Check how far a question leads to its answer, in the eyes of the generator.

    Without probabilities, the words decide alone.
    """
    if form.standing == "left_out" or gain is None:
        return form
    if gain < config.doubtful_gain:
        return Checked("left_out", "does not lead to its answer", form.shared_words)
    if gain < config.gain:
        return Checked("doubtful", "hardly leads to its answer", form.shared_words)
    return form


def first_of_equals(questions: Sequence[str], similarity: float) -> list[int | None]:
    """Return for each question the number of an earlier one that is nearly the same, or None.

    Similarity is Jaccard's, of the content words.
    """
    seen: list[tuple[int, set[str]]] = []
    repeats: list[int | None] = []
    for number, question in enumerate(questions):
        words = set(content_words(question))
        earlier = next(
            (
                before
                for before, known in seen
                if len(words & known) >= similarity * max(1, len(words | known))
            ),
            None,
        )
        repeats.append(earlier)
        if earlier is None:
            seen.append((number, words))
    return repeats
