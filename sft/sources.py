"""Where demonstrations come from: the formats that files of demonstrations have in the field.

Each reader turns one record into a conversation, or says why it cannot. Nothing is skipped in
silence: a record that cannot be read is kept with its row number and the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from plumbline.data.files import conversation_of, read_records
from plumbline.data.records import Conversation, Row
from plumbline.dropped import Dropped
from plumbline.runs.calls import SourceFile
from sft.forms import chain_of_thought, form_of, single_turn, split_worked_answer


class Source(NamedTuple):
    """Rows with ``messages``, ``form``, ``origin`` and ``row``, and what could not be read."""

    rows: list[Row]
    dropped: Dropped


def from_rows(rows: list[Row], origin: str) -> Source:
    """Take rows that are conversations already, such as the embedded world's."""
    return Source(
        [row | {"origin": origin, "row": number} for number, row in enumerate(rows, 1)], Dropped()
    )


def from_file(file: SourceFile) -> Source:
    """Read a file of demonstrations in any of the formats below, told apart by their keys.

    =================  =========================================================================
    keys               format
    =================  =========================================================================
    ``messages``       TRL's conversational format
    ``conversations``  ShareGPT: ``from`` and ``value`` (or role and content)
    ``instruction``    Alpaca: with ``input`` and ``output``
    ``question``       GSM8K: with ``answer``, worked in lines and ended by ``#### result``
    ``prompt``         TRL's prompt-completion format, as text or as messages
    =================  =========================================================================
    """
    rows, dropped, origin = [], Dropped(), file.path.name
    for number, record in read_records(file.path):
        try:
            messages = _conversation(record)
        except ValueError as problem:
            dropped.add(origin, number, str(problem), record)
            continue
        rows.append(
            {"messages": messages, "form": form_of(messages), "origin": origin, "row": number}
        )
    return Source(rows, dropped)


def _conversation(record: Mapping[str, Any]) -> Conversation:
    """Turn one record into a conversation; raise `ValueError` with the reason where it is none."""
    if record.get("images") or record.get("image"):
        raise ValueError("has images, and this suite trains on text alone")
    if "messages" in record:
        return conversation_of(record["messages"])
    if "conversations" in record:
        return conversation_of(record["conversations"])
    if "instruction" in record:
        return single_turn(
            _text(record, "instruction"), _text(record, "output"), str(record.get("input") or "")
        )
    if "question" in record:
        question, worked = _text(record, "question"), _text(record, "answer")
        parts = split_worked_answer(worked)
        return (
            single_turn(question, worked) if parts is None else chain_of_thought(question, *parts)
        )
    if "prompt" in record:
        prompt, completion = record["prompt"], record.get("completion")
        if isinstance(prompt, str) and isinstance(completion, str):
            return single_turn(prompt, completion)
        return conversation_of([*(prompt or ()), *(completion or ())])
    raise ValueError(f"has the keys {', '.join(sorted(record))}, which are of no known format")


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"has {type(value).__name__} under {key!r}, not text")
    return value
