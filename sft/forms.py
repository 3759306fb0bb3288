"""The forms of demonstration: ways of writing what is to be learnt as a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from plumbline.data.records import Conversation, Message, assistant, user

Form = Literal["single_turn", "chain_of_thought", "multi_turn"]
FORMS: tuple[Form, ...] = ("single_turn", "chain_of_thought", "multi_turn")

#: Answers that work towards a result mark it so; GSM8K's convention is the second.
_RESULT = re.compile(r"(?:^|\s)Answer: |^#### ", re.MULTILINE)
_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")


def single_turn(instruction: str, response: str, context: str = "") -> Conversation:
    """Return one question with one answer; ``context`` follows the question after a blank line."""
    question = instruction if not context.strip() else f"{instruction}\n\n{context}"
    return [user(question), assistant(response)]


def chain_of_thought(question: str, steps: Sequence[str], answer: str) -> Conversation:
    """Return a question whose answer is worked in steps and ends in ``Answer: …``."""
    return [user(question), assistant("\n".join([*steps, f"Answer: {answer}"]))]


def form_of(messages: Sequence[Message]) -> Form:
    """Return which form a conversation has, where its source does not say."""
    if sum(message["role"] == "user" for message in messages) > 1:
        return "multi_turn"
    return "chain_of_thought" if _RESULT.search(messages[-1]["content"]) else "single_turn"


def split_worked_answer(text: str) -> tuple[list[str], str] | None:
    """Split an answer in GSM8K's format into its steps and its result.

    Steps are lines, the result stands behind ``####``; the calculator's marks ``<<2*3=6>>`` are
    removed. Returns None where the format does not hold.
    """
    body, separator, result = text.rpartition("####")
    steps = [_CALCULATOR_MARK.sub("", line).strip() for line in body.splitlines()]
    steps = [step for step in steps if step]
    if not separator or not result.strip() or not steps:
        return None
    return steps, result.strip()
