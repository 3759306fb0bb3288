"""Messages as files write them, made into a conversation: TRL's, OpenAI's, ShareGPT's and HH's.

A message of ours has a ``role`` and a ``content``. Where its source says more, it also has

- ``tool_calls``: functions that the assistant calls, in OpenAI's form, ``arguments`` as JSON text;
- ``name`` and ``tool_call_id``: which call a ``tool`` message answers;
- ``reasoning_content``: what the assistant thought before it spoke;
- ``weight``: 0 for a turn of the assistant's that is shown and not learnt.

Every function here raises `ValueError` with the reason where a value is not a conversation. The
reason continues a sentence that begins with the row or the column: "'messages' has a turn by …".
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from plumbline.data.records import Conversation, Message

ROLE_NAMES: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "ipython": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
_CALLS = ("function_call", "tool_call")
#: Keys of a turn that are read; the others are counted by `unread_keys`.
_TURN_KEYS = frozenset(
    (
        "role", "from", "speaker", "content", "value", "text", "utterance",
        "tool_calls", "function_call", "tool_call_id", "name",
        "reasoning_content", "reasoning", "thinking", "weight", "train", "loss",
    )
)  # fmt: skip
#: Keys of a turn or a part with images, sound or files.
_MEDIA = ("images", "image", "image_url", "videos", "video", "audios", "audio", "input_audio",
          "files", "file", "attachments")  # fmt: skip
_HH_MARK = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):[ ]?")
_HH_LINE = re.compile(r"(?:\A\s*|\r?\n)(Human|Assistant):[ ]?")
_HH_INSIDE = re.compile(r"\r?\n\r?\n(?:Human|Assistant):")
_HH_START = re.compile(r"\A\s*(?:Human|Assistant):")
_LARGEST_LITERAL = 1_000_000


def is_missing(value: object) -> bool:
    """Return whether a cell holds nothing: null, or the NaN that tables write for an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def kind_of(value: object) -> str:
    """Return what a value is, in the words of JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, Sequence):
        return "a list"
    return type(value).__name__


def messages_from(value: Any) -> Conversation:
    """Read a list of messages, one message, or a text of JSON (or of Python) that holds them."""
    turns = structure_from(value)
    if isinstance(turns, Mapping):
        turns = _transposed(turns) if _is_transposed(turns) else [turns]
    if isinstance(turns, str | bytes) or not isinstance(turns, Sequence):
        raise ValueError(f"is {kind_of(value)}, not a list of messages")
    return [_message(turn, number) for number, turn in enumerate(turns, 1)]


def conversation_from(value: Any, speaker: str) -> Conversation:
    """Read messages, or a text: a dialogue in HH's marks, or one turn of ``speaker``'s."""
    if isinstance(value, str):
        turns = structure_from(value)
        if not isinstance(turns, str) and _holds_messages(turns):
            return messages_from(turns)
        return hh_dialogue(value) or [{"role": speaker, "content": value}]
    if is_missing(value):
        raise ValueError("is null")
    return messages_from(value)


def hh_dialogue(text: str) -> Conversation | None:
    """Read a dialogue in Anthropic's HH format; None where the text does not begin as one.

    Turns begin after an empty line; in a text without one, at the start of a line. An open
    ``Assistant:`` at the end, with nothing behind it, is kept as an empty turn.
    """
    if not _HH_START.match(text):
        return None
    parts = _HH_MARK.split(text)
    if not holds_hh_turns(text):
        by_line = _HH_LINE.split(text)
        # One speaker's name twice in turn is a line of the text, and no turn.
        if all(a != b for a, b in itertools.pairwise(by_line[1::2])):
            parts = by_line
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": content.strip()}
        for speaker, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def holds_hh_turns(text: str) -> bool:
    """Return whether turns in HH's marks stand within a text, behind its beginning."""
    return _HH_INSIDE.search(text.lstrip()) is not None


def structure_from(value: Any) -> Any:
    """Return the list or object that a text holds, as cells of tables do; else the value itself.

    A text that pandas wrote holds Python's notation (``[{'role': 'user', …}]``) in place of JSON.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    if len(value) > _LARGEST_LITERAL:
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return value


def unread_keys(value: Any) -> frozenset[str]:
    """Return the keys of turns that hold something and that no reader uses."""
    turns = structure_from(value)
    if isinstance(turns, Mapping):
        turns = [turns]
    if isinstance(turns, str) or not isinstance(turns, Sequence):
        return frozenset()
    return frozenset(
        str(key)
        for turn in turns
        if isinstance(turn, Mapping)
        for key, held in turn.items()
        if key not in _TURN_KEYS and not is_missing(held) and held not in ("", [], {})
    )


def tools_from(value: Any) -> list[dict[str, Any]]:
    """Read the functions that the assistant may call: a list, or the JSON text of one."""
    if isinstance(value, str) and not value.strip():
        return []
    tools = structure_from(value)
    if isinstance(tools, Mapping):
        tools = [tools]
    if isinstance(tools, str) or not isinstance(tools, Sequence):
        raise ValueError(f"is {kind_of(value)}, not a list of functions")
    read = []
    for number, tool in enumerate(map(structure_from, tools), 1):
        if not isinstance(tool, Mapping):
            raise ValueError(f"has a function {number} that is {kind_of(tool)}, not an object")
        read.append({key: held for key, held in tool.items() if not is_missing(held)})
    return read


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, Mapping):
        raise ValueError(f"has a turn {number} that is {kind_of(turn)}, not an object")
    named = next(
        (turn[k] for k in ("role", "from", "speaker") if not is_missing(turn.get(k))), None
    )
    _refuse_media(turn, number)
    role = ROLE_NAMES.get(named.lower()) if isinstance(named, str) else None
    if role is None:
        raise ValueError(
            f"has a turn {number} by {named!r}; turns are by system, user, assistant and tool"
        )
    keys = ("content", "value", "text", "utterance")
    content = next((turn[k] for k in keys if not is_missing(turn.get(k))), None)
    calls = _tool_calls(turn, number)
    if str(named).lower() in _CALLS:
        calls, content = _calls_from(content, number), ""
    if content is None and calls:
        content = ""
    message: Message = {"role": role, "content": _text_of(content, number)}
    if calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id") if role == "tool" else ():
        if isinstance(turn.get(key), str) and turn[key]:
            message[key] = turn[key]
    if role == "assistant":
        _add_reasoning_and_weight(message, turn, number)
    return message


def _text_of(content: Any, number: int) -> str:
    """Return a content as text: its parts of text are joined, other parts are refused."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence):
        raise ValueError(f"has {kind_of(content)} as content of turn {number}, not text")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind not in ("text", "input_text", "output_text"):
            raise ValueError(
                f"has a part of the type {kind!r} in turn {number}, and this suite reads text alone"
            )
        if not isinstance(text, str):
            raise ValueError(f"has a part without text in turn {number}")
        if isinstance(part, Mapping):
            _refuse_media(part, number)
        texts.append(text)
    return "".join(texts)


def _refuse_media(held: Mapping[str, Any], number: int) -> None:
    for key in _MEDIA:
        if not is_missing(held.get(key)) and held[key] not in ("", [], {}):
            raise ValueError(f"has {key!r} in turn {number}, and this suite reads text alone")


def _tool_calls(turn: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    calls = turn.get("tool_calls")
    if is_missing(calls) or calls in ("", []):
        calls = turn.get("function_call")  # OpenAI's older form: one call
    return [] if is_missing(calls) or calls in ("", [], {}) else _calls_from(calls, number)


def _calls_from(value: Any, number: int) -> list[dict[str, Any]]:
    """Return calls in OpenAI's form, whichever of the usual ones they are in."""
    calls = structure_from(value)
    if isinstance(calls, Mapping):
        calls = [calls]
    if isinstance(calls, str) or not isinstance(calls, Sequence) or not calls:
        raise ValueError(f"has {kind_of(value)} in turn {number} where a call of a tool belongs")
    read = []
    for call in map(structure_from, calls):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"has a call of a tool in turn {number} without the tool's name")
        arguments = function.get("arguments", function.get("parameters"))
        if not isinstance(arguments, str):
            arguments = json.dumps({} if is_missing(arguments) else arguments, ensure_ascii=False)
        entry = {
            "type": "function",
            "function": {"name": function["name"], "arguments": arguments},
        }
        if isinstance(call.get("id"), str):
            entry["id"] = call["id"]
        read.append(entry)
    return read


def _add_reasoning_and_weight(message: Message, turn: Mapping[str, Any], number: int) -> None:
    for key in ("reasoning_content", "reasoning", "thinking"):
        thought = turn.get(key)
        if isinstance(thought, str) and thought.strip():
            message["reasoning_content"] = thought
            break
        if not is_missing(thought) and not isinstance(thought, str):
            raise ValueError(f"has {kind_of(thought)} as {key} of turn {number}, not text")
    for key in ("weight", "train", "loss"):
        weight = turn.get(key)
        if is_missing(weight):
            continue
        if weight not in (0, 1):  # true and false are equal to these
            raise ValueError(
                f"has the {key} {weight!r} in turn {number}; a turn is learnt (1) or not (0)"
            )
        if not weight:
            message["weight"] = 0
        break


def _holds_messages(turns: Any) -> bool:
    """Return whether a structure in a text is messages, and no answer that happens to be JSON."""
    if isinstance(turns, Mapping):
        turns = [turns]
    return bool(turns) and all(
        isinstance(turn, Mapping)
        and (turn.keys() & {"role", "from"})
        and (turn.keys() & {"content", "value"})
        for turn in turns
    )


def _is_transposed(turns: Mapping[str, Any]) -> bool:
    """Return whether messages are written by column, as older versions of ``datasets`` do."""
    return bool(turns) and all(isinstance(held, list) for held in turns.values())


def _transposed(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    lengths = {key: len(held) for key, held in columns.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{length} under {key!r}" for key, length in lengths.items())
        raise ValueError(f"has messages by column, and not as many in each: {counts}")
    length = next(iter(lengths.values()))
    return [{key: held[place] for key, held in columns.items()} for place in range(length)]
