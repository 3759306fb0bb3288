"""The parts that a row of data may have, under any name.

A format says which columns hold which part; a ``columns`` setting says so for any other table:
``columns: {prompt: question, response: best_answer}``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from plumbline.tables import Table


@dataclass(frozen=True)
class Part:
    """One part of a row, and what it means."""

    name: str
    about: str


PARTS = Table(
    "part of a row",
    (
        Part("messages", "a whole dialogue; its last response is what is learnt or compared to"),
        Part("prompt", "what is asked: text, messages, or a dialogue in HH's marks"),
        Part("system", "the system message; it is put first"),
        Part("history", "earlier turns; they stand before the prompt"),
        Part("context", "a passage that the question is about; it stands before the question"),
        Part("input", "what an instruction is applied to; it stands after the instruction"),
        Part("options", "responses to choose from; they are listed under the question"),
        Part("response", "the response: text or messages (TRL's `completion`)"),
        Part("reasoning", "what the assistant thought before the response"),
        Part("wrong_answers", "other responses to the prompt, which are wrong: a list of texts"),
        Part("chosen", "the better response"),
        Part("rejected", "the worse response"),
        Part("a", "one of two responses to compare"),
        Part("b", "the other one"),
        Part("verdict", "which of a and b is better: a, b, tie or both_bad"),
        Part("answer", "the known answer of a gold item for labellers: a, b, tie or both_bad"),
        Part("label", "whether a single response is good: true or false"),
        Part("steps", "the steps of a chain of thought: a list of texts"),
        Part(
            "step_labels", "whether each step is right: true, false or from 0 to 1; null: unknown"
        ),
        Part("references", "good responses to measure others by"),
        Part("correct", "which of the options is right: its letter, text or number"),
        Part("tools", "functions that the assistant may call"),
        Part("media", "images, audio or video; a row that has any is left out"),
        Part("weight", "whether the row is learnt: 1 or true, 0 or false"),
        Part("margin", "by how much chosen is better"),
        Part("subset", "to which kind of prompts the row belongs"),
        Part("id", "the row's own id"),
        Part("reasons", "why a senior labeller should see the pair"),
        Part("item", "what is labelled"),
        Part("person", "who labelled it"),
        Part("vote", "which label they gave"),
        Part("created_at", "when, as ISO 8601"),
        Part("shown_first", "which response they saw first: a or b"),
        Part("rationale", "why, in their words"),
        Part("strength", "by how much, from 1 (slightly) to 3 (much)"),
        Part("flags", "what else they noted: a list, or text separated by semicolons"),
        Part("purpose", "vote, gold, repeat or adjudication"),
        Part("model", "which model responded"),
    ),
)


def check_columns(columns: Mapping[str, str]) -> Mapping[str, str]:
    """Return a ``columns`` setting; raise `ValueError` where it names a part that there is not."""
    for part, column in columns.items():
        PARTS.check(part)
        if not column:
            raise ValueError(f"{part} names no column")
    twice = sorted({c for c in columns.values() if list(columns.values()).count(c) > 1})
    if twice:
        raise ValueError(f"the column {twice[0]!r} is given to more than one part")
    return columns


#: The type of a ``columns`` setting: part to column.
Columns = Annotated[dict[str, str], AfterValidator(check_columns)]


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a question that offers the nearest of some names, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
