"""Where demonstrations come from: the formats that files of demonstrations have in the field.

Each reader turns one record into a conversation, or says why it cannot. Nothing is skipped in
silence: a record that cannot be read is kept with its row number and the reason.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.calls import SourceFile
from plumbline.errors import DataError
from plumbline.records import Conversation, Dropped, Row
from sft.forms import chain_of_thought, form_of, multi_turn, single_turn, split_worked_answer

_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
                   "system": "system"}  # fmt: skip


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
    for number, record in enumerate(read_records(file.path), 1):
        try:
            messages = _conversation(record)
        except ValueError as problem:
            dropped.add(origin, number, str(problem), record)
            continue
        rows.append(
            {"messages": messages, "form": form_of(messages), "origin": origin, "row": number}
        )
    return Source(rows, dropped)


def read_records(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a ``.json``, ``.jsonl`` or ``.parquet`` file, gzipped or not."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pandas as pd

        yield from pd.read_parquet(path).to_dict(orient="records")  # type: ignore[misc]
        return
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            if name.endswith(".json"):
                records = json.load(stream)
                if not isinstance(records, list):
                    raise DataError(f"{path} holds {type(records).__name__}, not a list of records.")
                yield from records
                return
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _parse(line, path, number)
    except (json.JSONDecodeError, UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None


def _parse(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number} is not JSON: {error}.") from None
    if not isinstance(record, Mapping):
        raise DataError(f"{path}, line {number} is {type(record).__name__}, not an object.")
    return record


def _conversation(record: Mapping[str, Any]) -> Conversation:
    """Turn one record into a conversation; raise `ValueError` with the reason where it is none."""
    if record.get("images") or record.get("image"):
        raise ValueError("has images, and this suite trains on text alone")
    if "messages" in record:
        return _turns(record["messages"])
    if "conversations" in record:
        return _turns(record["conversations"])
    if "instruction" in record:
        return single_turn(
            _text(record, "instruction"), _text(record, "output"), str(record.get("input") or "")
        )
    if "question" in record:
        question, worked = _text(record, "question"), _text(record, "answer")
        parts = split_worked_answer(worked)
        return single_turn(question, worked) if parts is None else chain_of_thought(question, *parts)
    if "prompt" in record:
        prompt, completion = record["prompt"], record.get("completion")
        if isinstance(prompt, str) and isinstance(completion, str):
            return single_turn(prompt, completion)
        return _turns([*(prompt or ()), *(completion or ())])
    raise ValueError(f"has the keys {', '.join(sorted(record))}, which are of no known format")


def _turns(turns: Any) -> Conversation:
    messages: Conversation = []
    for turn in turns if turns is not None else ():
        role = turn.get("role") or turn.get("from")
        content = turn.get("content") if turn.get("content") is not None else turn.get("value")
        if role not in _SHAREGPT_ROLES:
            raise ValueError(f"has a turn by {role!r}; turns are by system, user and assistant")
        if not isinstance(content, str):
            raise ValueError(f"has a turn whose content is {type(content).__name__}, not text")
        messages.append({"role": _SHAREGPT_ROLES[role], "content": content})
    return multi_turn(messages)


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"has {type(value).__name__} under {key!r}, not text")
    return value
