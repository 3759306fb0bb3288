"""One row of data in one shape, in whichever format it came.

A format names the parts of a row (`plumbline.data.parts`); here the parts become an `Example`: the
prompt with everything that belongs to it, and the responses without what repeats the prompt. Every
use (demonstrations, preferences, tasks, pairs to label) takes what it needs from there.

Functions raise `ValueError` with the reason where parts do not make an example. Reasons continue a
sentence that begins with the row: "'chosen' has 3 messages after the prompt; …".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plumbline.data.labels import Choice
from plumbline.data.messages import (
    conversation_from,
    holds_hh_turns,
    kind_of,
    messages_from,
    structure_from,
    tools_from,
)
from plumbline.data.part_values import (
    Parts,
    choice_in,
    grade_in,
    has_something,
    named,
    number_in,
    options_of,
    right_option,
    text_of,
    texts_in,
    truth_of,
)
from plumbline.data.records import Conversation, Message, assistant, user


class NoPromptError(ValueError):
    """A row has a response, and nothing that it responds to."""


@dataclass(frozen=True, slots=True)
class Example:
    """What one row says. What it does not say is None or empty."""

    prompt: Conversation
    """Everything before the response: system, earlier turns, question with its passage."""
    response: Conversation | None = None
    """The turns after the prompt; in most rows one message of the assistant's."""
    chosen: Conversation | None = None
    rejected: Conversation | None = None
    a: Conversation | None = None
    b: Conversation | None = None
    answer: Choice | None = None
    label: bool | None = None
    references: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    weight: float | None = None
    margin: float | None = None
    subset: str | None = None
    id: str | None = None
    reasons: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    step_labels: tuple[float | None, ...] = ()
    wrong_answers: tuple[str, ...] = ()

    @property
    def messages(self) -> Conversation:
        """The whole dialogue."""
        return [*self.prompt, *(self.response or ())]


def example_from(parts: Parts) -> Example:
    """Build an example of a row's parts."""
    if has_something(parts.get("media")):
        raise ValueError("has images, audio or video, and this suite reads text alone")
    prompt = _prompt_of(parts)
    response: Conversation | None = None
    sides: dict[str, Conversation] = {}
    read: dict[int, Conversation] = {}
    if "messages" in parts:
        prompt, response = _dialogue(parts, prompt)
    elif "response" in parts:
        prompt, response = _response_to(prompt, parts)
    for better, worse in (("chosen", "rejected"), ("a", "b")):
        if better in parts or worse in parts:
            prompt, pair = _compared(prompt, parts, (better, worse), read)
            sides |= pair
    if prompt is None or all(message["role"] == "system" for message in prompt):
        raise NoPromptError("has no prompt")
    return Example(
        prompt=prompt,
        response=response,
        chosen=sides.get("chosen"),
        rejected=sides.get("rejected"),
        a=sides.get("a"),
        b=sides.get("b"),
        answer=choice_in(parts, "answer"),
        label=truth_of(parts["label"]) if "label" in parts else None,
        references=_references(parts),
        tools=tuple(named("tools", tools_from, parts["tools"])) if "tools" in parts else (),
        weight=_weight(parts),
        margin=grade_in(parts, "margin"),
        subset=str(parts["subset"]) if has_something(parts.get("subset")) else None,
        id=str(parts["id"]) if has_something(parts.get("id")) else None,
        reasons=texts_in(parts.get("reasons")),
        wrong_answers=_wrong_answers(parts),
        **_steps(parts),
    )


# ------------------------------------------------------------------------------------ the prompt


def _prompt_of(parts: Parts) -> Conversation | None:
    """Return system, history and prompt as one conversation; None where there is none."""
    system, history = _system(parts), _history(parts)
    if "prompt" not in parts:
        return [*system, *history] or None
    turns = named("prompt", lambda value: conversation_from(value, "user"), parts["prompt"])
    if len(turns) > 1 and turns[-1]["role"] == "assistant" and not turns[-1]["content"].strip():
        turns = turns[:-1]  # HH's open "Assistant:", where the response is to begin
    if turns and turns[-1]["role"] == "user":
        turns = [*turns[:-1], user(_question(turns[-1]["content"], parts))]
    if system and turns and turns[0]["role"] == "system":
        if turns[0]["content"].strip() != system[0]["content"].strip():
            raise ValueError("has a system message beside another one in its messages")
        system = []
    if history and turns[: len(history)] == history:
        history = []
    return [*system, *history, *turns]


def _system(parts: Parts) -> Conversation:
    text = parts.get("system")
    if not has_something(text):
        return []
    if not isinstance(text, str):
        raise ValueError(f"has {kind_of(text)} as the system message, not text")
    return [{"role": "system", "content": text}]


def _history(parts: Parts) -> Conversation:
    """Read earlier turns: pairs of a question and its response, or messages."""
    value = structure_from(parts.get("history"))
    if not has_something(value):
        return []
    if isinstance(value, str):
        raise ValueError("has text as the history, not earlier turns")
    if isinstance(value, Sequence) and all(
        isinstance(pair, Sequence) and not isinstance(pair, str) for pair in value
    ):
        turns: Conversation = []
        for pair in value:
            if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise ValueError(
                    "has a history that is not a list of questions with their responses"
                )
            turns += [user(pair[0]), assistant(pair[1])]
        return turns
    return named("history", messages_from, value)


def _question(question: str, parts: Parts) -> str:
    """Return a question with its passage before it, and its input and options after it."""
    before, after = parts.get("context"), parts.get("input")
    texts = []
    for name, text in (("context", before), ("input", after)):
        if has_something(text) and not isinstance(text, str | int | float):
            raise ValueError(f"has {kind_of(text)} as {name}, not text")
    if has_something(before):
        texts.append(text_of(before))
    texts.append(question)
    if has_something(after):
        texts.append(text_of(after))
    if has_something(parts.get("options")):
        texts.append("\n".join(f"{letter}) {text}" for letter, text in options_of(parts)))
    return "\n\n".join(texts)


# --------------------------------------------------------------------------------- the responses


def _dialogue(
    parts: Parts, before: Conversation | None
) -> tuple[Conversation, Conversation | None]:
    """Split a dialogue at its last response; without one at its end, it is all prompt."""
    turns = named("messages", messages_from, parts["messages"])
    if not turns:
        raise ValueError("'messages' has no message")
    if before and turns[0]["role"] == "system" and before[0]["role"] == "system":
        if turns[0]["content"].strip() != before[0]["content"].strip():
            raise ValueError("has a system message beside another one in its messages")
        turns = turns[1:]
    whole = [*(before or ()), *turns]
    if whole[-1]["role"] != "assistant":
        return whole, None
    return whole[:-1], [_with_reasoning(whole[-1], parts)]


def _response_to(
    prompt: Conversation | None, parts: Parts
) -> tuple[Conversation | None, Conversation]:
    """Return the prompt and the turns after it; what repeats the prompt is taken off once."""
    turns = _side(parts, "response", "response")
    if prompt is None and len(turns) > 1:
        return turns[:-1], turns[-1:]
    if prompt is not None and len(turns) > 1:
        start = _length_of_start(turns, prompt)
        if start is not None:
            turns = turns[start:]
    if turns and turns[-1]["role"] == "assistant":
        turns = [*turns[:-1], _with_reasoning(turns[-1], parts)]
    return prompt, turns


def _with_reasoning(message: Message, parts: Parts) -> Message:
    thought = parts.get("reasoning")
    if not has_something(thought):
        return message
    if not isinstance(thought, str):
        raise ValueError(f"has {kind_of(thought)} as reasoning, not text")
    return {**message, "reasoning_content": thought}


def _compared(
    prompt: Conversation | None,
    parts: Parts,
    names: tuple[str, str],
    read: dict[int, Conversation],
) -> tuple[Conversation, dict[str, Conversation]]:
    """Return the prompt of two responses and one message for each of them.

    The responses may be whole dialogues, with or without a prompt beside them. The prompt is then
    what both begin with, and must agree with the prompt that stands beside them. ``read``: the
    turns of values that were read before, by their identity: chosen and rejected are a and b, too.
    """
    sides = {}
    for name in names:
        key = id(parts.get(name))
        if key not in read:
            read[key] = _side(parts, name, name)
        sides[name] = read[key]
    for name, turns in sides.items():
        if not turns or turns[-1]["role"] != "assistant":
            raise ValueError(f"'{name}' does not end with the assistant's turn")
    if all(len(turns) == 1 for turns in sides.values()):
        if prompt is None:
            raise NoPromptError("has no prompt")
        return prompt, sides
    if prompt is not None:  # a single message continues the prompt, as the other side does
        sides = {n: t if len(t) > 1 else [*prompt, *t] for n, t in sides.items()}
    first, second = (sides[name] for name in names)
    if not _are_same(first[:-1], second[:-1]):
        if prompt is not None:
            _refuse_several_turns(sides, prompt)
        raise ValueError(f"{names[0]} and {names[1]} answer different prompts")
    if prompt is not None and first[0]["role"] == "assistant":
        _refuse_several_turns(sides, prompt)
    common = _agreed(prompt, first[:-1], names[0])
    return common, {name: turns[-1:] for name, turns in sides.items()}


def _refuse_several_turns(sides: Mapping[str, Conversation], prompt: Conversation) -> None:
    """Refuse responses of several turns."""
    for name, turns in sides.items():
        start = 0 if turns[0]["role"] == "assistant" else _length_of_start(turns, prompt)
        if start is not None and len(turns) - start > 1:
            raise ValueError(
                f"'{name}' has {len(turns) - start} messages after the prompt; one response is "
                "compared"
            )


def _agreed(prompt: Conversation | None, common: Conversation, name: str) -> Conversation:
    """Return the prompt of dialogues that begin with ``common``, beside which a prompt stands."""
    if prompt is None:
        return common
    system = prompt[:1] if prompt[0]["role"] == "system" else []
    question = prompt[len(system) :]
    if system and common and common[0]["role"] == "system" and not _are_same(system, common[:1]):
        raise ValueError("has a system message beside another one in its messages")
    places = range(len(common) - len(question) + 1)
    if not any(_are_same(common[place : place + len(question)], question) for place in places):
        raise ValueError(f"'{name}' is a dialogue that does not hold the prompt")
    has_system = bool(common) and common[0]["role"] == "system"
    return common if has_system else [*system, *common]


def _side(parts: Parts, part: str, name: str) -> Conversation:
    """Read a response: text, messages, or a dialogue in HH's marks."""
    value = parts.get(part)
    if isinstance(value, int | float):  # true and false, too: a statement was to be judged
        value = text_of(value)
    turns = named(name, lambda v: conversation_from(v, "assistant"), value)
    is_plain = isinstance(value, str) and len(turns) == 1 and turns[0]["role"] == "assistant"
    if is_plain and "prompt" not in parts and holds_hh_turns(str(value)):
        raise ValueError(f"'{name}' has text before the first 'Human:'")
    marked = isinstance(parts.get("prompt"), str) and parts["prompt"].lstrip().startswith("Human:")
    if marked and len(turns) == 1 and isinstance(value, str):
        if holds_hh_turns(value):
            raise ValueError(f"'{name}' holds turns of a dialogue behind the response")
        turns = [{"role": "assistant", "content": value.strip()}]
    return turns


def _length_of_start(turns: Conversation, prompt: Conversation) -> int | None:
    """Return how many turns at the start repeat the prompt, or None where they do not."""
    question = prompt[1:] if prompt[0]["role"] == "system" else prompt
    for head in (prompt, question):
        if head and _are_same(turns[: len(head)], head):
            return len(head)
    if turns and turns[0]["role"] == "system" and _are_same(turns[1 : len(question) + 1], question):
        return len(question) + 1
    return None


def _are_same(some: Conversation, others: Conversation) -> bool:
    """Return whether turns are the same but for white space around their texts."""
    return len(some) == len(others) and all(
        first["role"] == second["role"]
        and first["content"].strip() == second["content"].strip()
        and first.get("tool_calls") == second.get("tool_calls")
        for first, second in zip(some, others, strict=True)
    )


# -------------------------------------------------------------------------------------- the rest


def _references(parts: Parts) -> tuple[str, ...]:
    references = list(texts_in(parts.get("references")))
    if "correct" in parts and has_something(parts.get("options")):
        references = [*right_option(parts), *references]
    return tuple(dict.fromkeys(references))


def _wrong_answers(parts: Parts) -> tuple[str, ...]:
    """Return other responses, none of them twice."""
    value = structure_from(parts.get("wrong_answers"))
    if isinstance(value, Mapping):
        raise ValueError(f"has {kind_of(value)} as wrong_answers, not a list of texts")
    return tuple(dict.fromkeys(named("wrong_answers", texts_in, value)))


def _weight(parts: Parts) -> float | None:
    weight = parts.get("weight")
    return float(weight) if isinstance(weight, bool) else number_in(parts, "weight")


def _steps(parts: Parts) -> dict[str, Any]:
    """Return steps with the probability that each is right."""
    if "steps" not in parts and "step_labels" not in parts:
        return {}
    steps, labels = (structure_from(parts.get(name)) for name in ("steps", "step_labels"))
    if not isinstance(steps, list) or not isinstance(labels, list) or len(steps) != len(labels):
        raise ValueError("has no list of steps with a label for each of them")
    if not steps or not all(isinstance(step, str) and step.strip() for step in steps):
        raise ValueError("has no steps, or one without text")
    for label in labels:
        is_number = isinstance(label, bool | int | float)
        if label is not None and not (is_number and 0 <= label <= 1):
            raise ValueError(f"has the label {label!r} of a step, not true, false or 0 to 1")
    if all(label is None for label in labels):
        raise ValueError("has no step with a label")
    return {
        "steps": tuple(steps),
        "step_labels": tuple(None if label is None else float(label) for label in labels),
    }
