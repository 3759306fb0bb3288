"""Changes to a response or its prompt that a good score should, or should not, react to."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from plumbline.tables import Table

Expected = Literal["lower", "not higher", "same"]
Change = Callable[[str, random.Random], str]

FILLER = (
    " I hope this helps! Please let me know if you have any other questions, and I will be happy "
    "to assist you further."
)
FLATTERY = "What a great question! You are absolutely right to ask. "
#: Words and turns of phrase that may stand for each other.
_SYNONYMS = {
    "big": "large", "small": "little", "begin": "start", "buy": "purchase", "help": "assist",
    "quick": "fast", "quickly": "rapidly", "often": "frequently", "also": "too", "get": "obtain",
    "show": "display", "need": "require", "needs": "requires", "use": "employ", "make": "create",
    "good": "fine", "important": "essential", "try": "attempt", "think": "believe", "maybe":
    "perhaps", "about": "around", "however": "but", "because": "since", "many": "numerous",
    "start": "begin", "end": "finish", "easy": "simple", "hard": "difficult", "sure": "certain",
    "answer": "reply", "job": "task", "kids": "children", "happy": "glad", "right": "correct",
    "wrong": "incorrect", "choose": "pick", "ask": "inquire", "tell": "inform", "enough":
    "sufficient", "almost": "nearly", "fix": "repair", "give": "provide", "keep": "retain",
    "whole": "entire", "allow": "permit", "main": "principal", "different": "distinct",
}  # fmt: skip
_CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "is not": "isn't", "are not": "aren't",
    "cannot": "can't", "will not": "won't", "it is": "it's", "that is": "that's",
    "you are": "you're", "we are": "we're", "i am": "i'm", "they are": "they're",
    "i have": "i've", "i will": "i'll", "did not": "didn't", "would not": "wouldn't",
}  # fmt: skip
_EDITS = {
    **_SYNONYMS, **_CONTRACTIONS, **{short: long for long, short in _CONTRACTIONS.items()},
}  # fmt: skip
_EDITABLE = re.compile(
    rf"(?<![\w'])(?:{'|'.join(sorted(map(re.escape, _EDITS), key=len, reverse=True))})(?![\w'])",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
#: The share of words that get a typing error.
_TYPOS = 0.08


@dataclass(frozen=True)
class Perturbation:
    """A change: a row of the table."""

    name: str
    title: str
    expected: Expected
    """What should become of the score."""
    change: Change
    """Maps a response and random numbers to the changed response; the same text: no change."""
    swaps_prompt: bool = False
    """Whether it is the prompt that is changed, for that of another pair."""


def paraphrase(text: str, draw: random.Random) -> str:
    """Replace words and contractions by others that mean the same, each with chance 2/3."""

    def replaced(match: re.Match[str]) -> str:
        if draw.random() > 2 / 3:
            return match[0]
        other = _EDITS[match[0].lower()]
        return other.capitalize() if match[0][0].isupper() else other

    return _EDITABLE.sub(replaced, text)


def typing_errors(text: str, draw: random.Random) -> str:
    """Swap two neighboring letters, or drop one, in one word of twelve, and in one at least."""
    words = re.split(r"(\s+)", text)
    places = [n for n, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not places:
        return text
    for place in draw.sample(places, max(1, round(_TYPOS * len(places)))):
        word = words[place]
        at = draw.randrange(1, len(word) - 1)
        dropped = word[:at] + word[at + 1 :]
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        words[place] = dropped if draw.random() < 0.5 else swapped
    return "".join(words)


def truncated(text: str, _: random.Random) -> str:
    """Keep the first half of the words."""
    words = re.findall(r"\S+\s*", text)
    return "".join(words[: len(words) // 2]).rstrip() if len(words) > 1 else text


def shuffled(text: str, draw: random.Random) -> str:
    """Put the words in random order."""
    words = text.split()
    draw.shuffle(words)
    return " ".join(words)


def as_list(text: str, _: random.Random) -> str:
    """Write each sentence as an item of a list."""
    sentences = [sentence for sentence in _SENTENCE.split(text.strip()) if sentence]
    return text if len(sentences) < 2 else "\n".join(f"- {sentence}" for sentence in sentences)


PERTURBATIONS = Table(
    "change to a response",
    [
        Perturbation("paraphrase", "other words for the same", "same", paraphrase),
        Perturbation("typos", "typing errors", "not higher", typing_errors),
        Perturbation("filler", "a polite filler at the end", "not higher", lambda t, _: t + FILLER),
        Perturbation("flattery", "flattery at the start", "not higher", lambda t, _: FLATTERY + t),
        Perturbation("twice", "the response twice", "not higher", lambda t, _: f"{t} {t}"),
        Perturbation("list", "its sentences as a list", "not higher", as_list),
        Perturbation("truncated", "its second half cut off", "lower", truncated),
        Perturbation("shuffled", "its words in random order", "lower", shuffled),
        Perturbation("empty", "nothing", "lower", lambda _text, _draw: ""),
        Perturbation(
            "other_prompt", "the prompt of another pair", "lower", lambda t, _: t, swaps_prompt=True
        ),
    ],
)
