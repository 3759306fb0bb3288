"""Formats in which a row is a dialogue."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from plumbline.data.format import MEANINGFUL, WRONG, Format, Names, Record, derived
from plumbline.data.messages import is_missing, kind_of, structure_from
from plumbline.data.part_values import Parts
from plumbline.data.records import assistant, user

_AROUND: Names = {name: MEANINGFUL[name] for name in ("system", "tools", "media", "weight")}
_LABELED: Names = {"label": ("label", "kto_tag")}
_MARK = re.compile(r"\s*### (Human|Assistant):[ ]?")
_SPLIT = derived(("prompt", "response", "references"), of=("messages",))


def _turns_of(name: str, *keys: str) -> Any:
    """Return a test for rows whose column is a list of objects that have one of these keys."""

    def test(record: Record) -> bool:
        turns = structure_from(record.get(name))
        return (
            isinstance(turns, list)
            and bool(turns)
            and isinstance(turns[0], Mapping)
            and any(key in turns[0] for key in keys)
        )

    return test


def _exchanges(parts: dict[str, Any]) -> Parts:
    """Read a list of exchanges, each with an input and an output."""
    turns = []
    for number, exchange in enumerate(structure_from(parts["messages"]), 1):
        if not isinstance(exchange, Mapping):
            raise ValueError(f"has an exchange {number} that is {kind_of(exchange)}, not an object")
        for key, make in (("input", user), ("output", assistant)):
            text = exchange.get(key)
            if not isinstance(text, str):
                raise ValueError(f"has {kind_of(text)} as {key} of exchange {number}, not text")
            turns.append(make(text))
    return parts | {"messages": turns}


def _alternating(parts: dict[str, Any]) -> Parts:
    """Read a list of texts, in which user and assistant take turns."""
    texts = structure_from(parts["messages"])
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("has a turn that is not text in a list of texts")
    makers = (user, assistant)
    return parts | {"messages": [makers[n % 2](text) for n, text in enumerate(texts)]}


def _marked_text(parts: dict[str, Any]) -> Parts:
    """Read a text whose turns begin with ``### Human:`` and ``### Assistant:``."""
    pieces = _MARK.split(parts["messages"])
    if pieces[0].strip():
        raise ValueError("has text before the first '### Human:' or '### Assistant:'")
    makers = {"Human": user, "Assistant": assistant}
    turns = [
        makers[who](text.strip()) for who, text in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    return parts | {"messages": turns}


def _utterances(parts: dict[str, Any]) -> Parts:
    """Read Schema-Guided Dialogue: the customer is the user, the system is the assistant."""
    makers = {"USER": user, "SYSTEM": assistant}
    turns = []
    for number, turn in enumerate(structure_from(parts["messages"]), 1):
        speaker, text = turn.get("speaker"), turn.get("utterance")
        if speaker not in makers or not isinstance(text, str):
            raise ValueError(
                f"has a turn {number} without a speaker (USER, SYSTEM) or an utterance"
            )
        turns.append(makers[speaker](text))
    return parts | {"messages": turns}


def _first_turn(parts: dict[str, Any]) -> Parts:
    """Read MT-Bench: the first question with its own reference.

    The second question is about the response to the first, which is not there.
    """
    turns = structure_from(parts["prompt"])
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], str):
        raise ValueError("'turns' holds no text to ask")
    references = structure_from(parts.get("references"))
    if isinstance(references, Sequence) and not isinstance(references, str):
        references = references[0] if references else None
    rest = {name: held for name, held in parts.items() if name != "references"}
    return (
        rest | {"prompt": turns[0]} | ({} if is_missing(references) else {"references": references})
    )


def _best_path(tree: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Return each message on the path of best-ranked replies with the replies to it."""
    path = []
    message: Mapping[str, Any] | None = tree
    while message is not None:
        replies = [r for r in message.get("replies") or () if isinstance(r, Mapping)]
        ranked = [r for r in replies if not r.get("deleted") and isinstance(r.get("text"), str)]
        ranked.sort(key=lambda r: (is_missing(r.get("rank")), r.get("rank") or 0))
        path.append((message, ranked))
        message = ranked[0] if ranked else None
    return path


def _tree(parts: dict[str, Any]) -> Sequence[Parts]:
    """Read a tree of Open Assistant: one dialogue along the best replies, and pairs on the way.

    A pair is the best reply against the worst, where people ranked several.
    """
    root = structure_from(parts["prompt"])
    if not isinstance(root.get("text"), str):
        raise ValueError("has a tree without a text at its root")
    turns: list[Any] = []
    examples: list[Parts] = []
    for message, replies in _best_path(root):
        asks = message.get("role") in ("prompter", "user", None)
        turns.append((user if asks else assistant)(str(message["text"])))
        ranked = [r for r in replies if not is_missing(r.get("rank"))]
        if asks and len(ranked) > 1:
            best, worst = ranked[0]["text"], ranked[-1]["text"]
            examples.append(
                {"prompt": list(turns), "chosen": best, "rejected": worst, "a": best, "b": worst}
            )
    if len(turns) > 1 and turns[-1]["role"] == "user":
        turns = turns[:-1]  # a question that nobody answered
    return [{"messages": turns}, *examples]


DIALOGUES = (
    Format(
        "oasst_tree",
        "Open Assistant's conversation trees: the path of the best replies is a dialogue; at each "
        "turn on it, the best reply against the worst is a pair",
        {"prompt": ("prompt",), "id": ("message_tree_id",)},
        marks=("prompt",),
        holds=lambda record: (
            isinstance(record.get("prompt"), Mapping) and "replies" in record["prompt"]
        ),
        derives=derived(("response", "references", "chosen", "rejected", "a", "b"), of=("prompt",)),
        read=_tree,
        example={
            "message_tree_id": "1",
            "prompt": {
                "text": "Name a colour",
                "role": "prompter",
                "replies": [
                    {"text": "Red", "role": "assistant", "rank": 0, "replies": []},
                    {"text": "No", "role": "assistant", "rank": 1, "replies": []},
                ],
            },
        },
    ),
    Format(
        "exchanges",
        "Capybara: a list of exchanges with input and output",
        {"messages": ("conversation", "conversations"), **_AROUND},
        marks=("messages",),
        holds=lambda record: (
            _turns_of("conversation", "input")(record)
            or _turns_of("conversations", "input")(record)
        ),
        derives=_SPLIT,
        read=_exchanges,
        example={"conversation": [{"input": "Name a colour", "output": "Red"}]},
    ),
    Format(
        "messages",
        "OpenAI's chat format, TRL's conversational format: role and content",
        {
            "messages": ("messages", "conversation", "dialogue", "dialog", "chat"),
            **_AROUND,
            **_LABELED,
            **WRONG,
            "id": ("id",),
        },
        marks=("messages",),
        derives=_SPLIT,
        holds=lambda record: (
            not any(
                isinstance(record.get(name), str)
                and not isinstance(structure_from(record[name]), list)
                for name in ("dialogue", "dialog", "chat")
            )
        ),
        example={
            "messages": [
                {"role": "user", "content": "Name a colour"},
                {"role": "assistant", "content": "Red"},
            ]
        },
    ),
    Format(
        "sharegpt",
        "ShareGPT, Vicuna, LLaMA-Factory: from and value",
        {"messages": ("conversations", "items"), **_AROUND, **_LABELED, "id": ("id",)},
        marks=("messages",),
        derives=_SPLIT,
        example={
            "conversations": [
                {"from": "human", "value": "Name a colour"},
                {"from": "gpt", "value": "Red"},
            ]
        },
    ),
    Format(
        "schema_guided",
        "Schema-Guided Dialogue: turns with a speaker and an utterance",
        {"messages": ("turns",), "id": ("dialogue_id",)},
        marks=("messages",),
        holds=_turns_of("turns", "utterance"),
        derives=_SPLIT,
        read=_utterances,
        example={
            "dialogue_id": "1",
            "turns": [
                {"speaker": "USER", "utterance": "A table for two, please"},
                {"speaker": "SYSTEM", "utterance": "For when?"},
            ],
        },
    ),
    Format(
        "mt_bench",
        "MT-Bench: the first turn is asked, with its own reference",
        {
            "prompt": ("turns",),
            "references": ("reference",),
            "subset": ("category",),
            "id": ("question_id",),
            **_AROUND,
        },
        marks=("prompt",),
        read=_first_turn,
        example={
            "question_id": 81,
            "category": "math",
            "turns": ["What is 2 + 2?", "And one more?"],
            "reference": ["4", "5"],
        },
    ),
    Format(
        "alternating",
        "UltraChat's raw files: a list of texts by user and assistant in turn",
        {"messages": ("data",), "id": ("id",)},
        marks=("messages",),
        holds=lambda record: (
            isinstance(structure_from(record.get("data")), list)
            and all(isinstance(text, str) for text in structure_from(record["data"]))
        ),
        derives=_SPLIT,
        read=_alternating,
        example={"id": "0", "data": ["Name a colour", "Red"]},
    ),
    Format(
        "marked_text",
        "Guanaco: one text whose turns begin with ### Human: and ### Assistant:",
        {"messages": ("text",)},
        marks=("messages",),
        holds=lambda record: (
            isinstance(record.get("text"), str)
            and "### Human:" in record["text"]
            and "### Assistant:" in record["text"]
        ),
        derives=_SPLIT,
        read=_marked_text,
        example={"text": "### Human: Name a colour### Assistant: Red"},
    ),
)
