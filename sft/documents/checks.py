"""Checks of a question that a generator wrote: kept, doubtful or left out, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from sft.documents.config import ChecksConfig
from sft.documents.document import content_words, is_chinese, sentences
from sft.documents.question_forms import Fit

Standing = Literal["kept", "doubtful", "left_out"]
_ABOUT_THE_TEXT = re.compile(
    r"\b(?:sentence|passage|paragraph|the text|question|the answer|author|following|above)\b"
    r"|句子|段落|本文|问题|作者|上文",
    re.IGNORECASE,
)
_REPEATED = re.compile(r"\b(\w+(?: \w+){2,5})\b.*\b\1\b", re.IGNORECASE)
#: A pronoun at the subject's place, with nothing in the question that it stands for.
_POINTS_BACK = re.compile(
    r"^\w+ (?:\w+ ){0,3}?(?:is|are|does|do|did|can|was|were|if|when) "
    r"(?:it|they|this|that|these|those|he|she)\b(?! (?:\w+ )?(?:to|that|when|if)\b)",
)
_NEGATED = re.compile(r"\b(?:not|no|never|none|cannot|nothing|nobody|without)\b|n[’']t\b|不|没")
#: Behind these a question has its verb.
_NEEDS_VERB = re.compile(
    r"^(?:Why|When|How|Where) (?!(?:is|are|was|were|do|does|did|can|could|should|must"
    r"|will|would|has|have|may|might|\w+n[’']t)\b)"
)
_UNFINISHED = re.compile(
    r"\b(?:the|an?|and|or|that|which|is|are)\?$|^(?!What).* (?:of|to|with|for)\?$"
)
_WITH_VERB = ("What does", "What can", "What must")
#: Words of the forms themselves.
_OF_FORMS = frozenset(content_words("happens do use happen mean work like"))
#: Words with which replies open.
_OF_REPLIES = frozenset(content_words("because answer question yes since"))


class Checked(NamedTuple):
    """The outcome of the checks of a question."""

    standing: Standing
    reason: str
    """Why it is not kept, in words that continue "this question …"; empty where it is."""
    shared_words: float
    """Share of the question's words that are in the part of the sentence that it asks about."""
    named: float = 0.0
    """Share of that part's words that the question has."""


def check_form(question: str, fit: Fit, config: ChecksConfig) -> Checked:
    """Check a question by its words, against the two parts of its sentence.

    A question is answered by its sentence if it asks about the one part and about nothing else: it
    has the words of that part, says no to what that part says no to, and leaves the other part to
    the answer.
    """
    words = [word for word in content_words(question) if word not in _OF_FORMS]
    own, answer = set(content_words(fit.topic)), set(content_words(fit.answer))
    used = set(words)
    # Who does what is asked with the verb, which is in the other part.
    verb = set(content_words(fit.answer)[:2]) if fit.form.start in _WITH_VERB else set()
    shared = len((own | verb) & used) / max(1, len(used))
    named = len(own & used) / max(1, len(own))
    new = answer - own - verb
    given_away = len(new & used) / max(1, len(new))
    whole = fit.form.start in ("What is", "What does", "什么是")
    problem = _malformed(question, words, config)
    if (
        problem is None
        and _ABOUT_THE_TEXT.search(question)
        and not _ABOUT_THE_TEXT.search(fit.topic)
    ):
        problem = "is about the text and not about what it says"
    elif problem is None and bool(_NEGATED.search(question)) != bool(_NEGATED.search(fit.topic)):
        problem = "says no where its sentence does not, or the other way round"
    elif problem is None and given_away > config.most_copied:
        problem = "has the words of its answer"
    elif problem is None and shared < config.doubtful_words:
        problem = "asks about what its sentence does not say"
    elif problem is None and named < (1.0 if whole else config.doubtful_named):
        problem = "does not name what its sentence is about"
    if problem is not None:
        return Checked("left_out", problem, shared, named)
    if shared < config.shared_words:
        return Checked(
            "doubtful", "asks partly about what its sentence does not say", shared, named
        )
    if named < config.named:
        return Checked("doubtful", "names only a part of what its sentence is about", shared, named)
    return Checked("kept", "", shared, named)


def _malformed(question: str, words: Sequence[str], config: ChecksConfig) -> str | None:
    """Return what is wrong with a question in itself."""
    longest = config.most_words * (2 if is_chinese(question) else 1)
    length = len(words) if is_chinese(question) else len(question.split())
    if not question.endswith(("?", "？")):
        return "does not end with a question mark"
    if not words:
        return "asks about nothing"
    if length > longest:
        return f"is longer than most_words ({config.most_words})"
    if _POINTS_BACK.search(question):
        return "means something that it does not name"
    if _REPEATED.search(question) or any(words.count(word) > 2 for word in words):
        return "repeats itself"
    if _NEEDS_VERB.search(question) or _UNFINISHED.search(question):
        return "is not a whole question"
    return None


def check_gain(form: Checked, gain: float | None, config: ChecksConfig) -> Checked:
    """Check how far a question leads to its answer, in the eyes of the generator."""
    if form.standing != "kept" or gain is None or config.gain is None or gain >= config.gain:
        return form
    return form._replace(standing="doubtful", reason="hardly leads to its answer")


def check_answer(
    before: Checked, question: str, reply: str, sentence: str, others: Sequence[str],
    config: ChecksConfig,
) -> Checked:  # fmt: skip
    """Check by a round trip: the generator's own answer must be from the same sentence.

    Of the words that its first sentence adds to the question, the sentence must have at least
    the share ``round_trip``, and no other sentence of the slice (``others``) more.
    """
    if before.standing == "left_out" or config.round_trip == 0:
        return before
    first = next((reply[start:end] for start, end in sentences(reply)), "")
    new = set(content_words(first)) - set(content_words(question)) - _OF_REPLIES
    if not new:
        return before._replace(
            standing="doubtful", reason="gets no answer from the generator itself"
        )
    share, *rest = (len(new & set(content_words(text))) / len(new) for text in (sentence, *others))
    if share < config.round_trip or share < max(rest, default=0.0):
        return before._replace(
            standing="doubtful", reason="is answered otherwise by the generator itself"
        )
    return before


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
