"""Steps on the order of turns and on their number: what can be learnt from at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from plumbline.data.records import Conversation, Message, Row, problem_with
from sft.cleaning.step import Outcome, RowFunction, Step, StepConfig, StepContext, each, turns_of
from sft.forms import FORMS, Form


class RolesConfig(StepConfig):
    """Which dialogues can be learnt from."""

    step: Literal["roles"] = "roles"
    forms: tuple[Form, ...] = FORMS
    """Forms of demonstration to keep."""
    order: Literal["any", "strict"] = "any"
    """strict: the user and the assistant take turns, the system speaks first alone, and results
    of tools follow their calls; many chat templates refuse anything else."""
    several_systems: Literal["keep", "join", "leave_out"] = "keep"
    """What becomes of a dialogue with several system messages: join makes one of them, at the
    start."""


def _roles(config: RolesConfig, _: StepContext) -> RowFunction:
    def step(row: Row) -> Outcome:
        messages = row["messages"]
        problem = problem_with(messages) or problem_with_demonstration(messages)
        if problem is None and row["form"] not in config.forms:
            problem = f"is of the form {row['form']}, which forms leaves out"
        if problem is not None:
            return Outcome(reason=problem)
        changes: tuple[str, ...] = ()
        systems = sum(message["role"] == "system" for message in messages)
        if systems > 1 and config.several_systems == "leave_out":
            return Outcome(reason=f"has {systems} system messages")
        if systems > 1 and config.several_systems == "join":
            row = row | {"messages": with_one_system(messages)}
            changes = ("several system messages were joined",)
        problem = problem_with_order(row["messages"]) if config.order == "strict" else None
        return Outcome(reason=problem) if problem is not None else Outcome((row,), None, changes)

    return each(step)


ROLES = Step(
    "roles",
    "whose turn it is: a question, an answer at the end, no empty turn, and the order of roles",
    RolesConfig,
    _roles,
)


def problem_with_demonstration(messages: Conversation) -> str | None:
    """Return why nothing can be learnt from a dialogue, or None."""
    if messages[-1]["role"] != "assistant":
        return f"ends with the {messages[-1]['role']}'s turn, so there is no answer to learn"
    if not any(message["role"] == "user" for message in messages):
        return "has no user's turn, so there is nothing to answer"
    return None


def problem_with_order(messages: Sequence[Message]) -> str | None:
    """Return what is wrong with the order of roles in a dialogue, or None.

    One system message may come first; then the user and the assistant take turns. Results of tools
    stand behind the turn that calls them and before the assistant's next one.
    """
    before = "start"
    for number, message in enumerate(messages, 1):
        role = message["role"]
        may = {
            "system": ("start",),
            "user": ("start", "system", "assistant"),
            "assistant": ("user", "tool"),
            "tool": ("calls", "tool"),
        }[role]
        if before not in may:
            was = "an assistant's turn that calls tools" if before == "calls" else f"the {before}"
            return f"has the {role}'s turn {number} behind {was}"
        before = "calls" if role == "assistant" and message.get("tool_calls") else role
    return "ends with a call of a tool" if before == "calls" else None


def with_one_system(messages: Conversation) -> Conversation:
    """Return a dialogue with its system messages joined, at the start."""
    texts = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(texts)}, *rest]


class LengthConfig(StepConfig):
    """How long dialogues may be."""

    step: Literal["length"] = "length"
    max_characters: int = Field(8000, ge=1)
    """Longest dialogue, in characters."""
    min_characters: int = Field(0, ge=0)
    """Shortest last answer, in characters."""
    max_turns: int | None = Field(None, ge=1)
    """Most turns, the system's and tools' not counted. Null: any number."""


def _length(config: LengthConfig, _: StepContext) -> RowFunction:
    def step(row: Row) -> Outcome:
        reason = next(_length_problems(row, config), None)
        return Outcome(reason=reason) if reason is not None else Outcome((row,))

    return each(step)


def _length_problems(row: Row, config: LengthConfig) -> Iterator[str]:
    turns = turns_of(row)
    if sum(len(turn["content"]) for turn in turns) > config.max_characters:
        yield f"is longer than max_characters ({config.max_characters})"
    last = turns[-1]
    if len(last["content"]) < config.min_characters and not last.get("tool_calls"):
        yield f"ends with an answer shorter than min_characters ({config.min_characters})"
    spoken = sum(turn["role"] in ("user", "assistant") for turn in turns)
    if config.max_turns is not None and spoken > config.max_turns:
        yield f"has more turns than max_turns ({config.max_turns})"


LENGTH = Step("length", "how long a dialogue and its last answer are", LengthConfig, _length)
