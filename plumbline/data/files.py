"""Reading files of records as they lie about in this field."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plumbline.data.records import Conversation
from plumbline.errors import DataError

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def read_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield row numbers (from 1) and records of a ``.json``, ``.jsonl`` or ``.parquet`` file.

    A row of a ``.jsonl`` file is its line. The first two may be gzipped.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow.parquet as pq

        yield from enumerate(pq.read_table(path).to_pylist(), 1)
        return
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            if name.endswith(".json"):
                records = json.load(stream)
                if not isinstance(records, list):
                    raise DataError(
                        f"{path} holds {type(records).__name__}, not a list of records."
                    )
                yield from enumerate(records, 1)
                return
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _parse(line, path, number)
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


def conversation_of(turns: Any) -> Conversation:
    """Turn messages in TRL's or ShareGPT's way of writing into a conversation.

    Raises `ValueError` with the reason where they are none.
    """
    messages: Conversation = []
    for turn in turns if turns is not None else ():
        role = turn.get("role") or turn.get("from")
        content = turn.get("content") if turn.get("content") is not None else turn.get("value")
        if role not in _ROLES:
            raise ValueError(f"has a turn by {role!r}; turns are by system, user and assistant")
        if not isinstance(content, str):
            raise ValueError(f"has a turn whose content is {type(content).__name__}, not text")
        messages.append({"role": _ROLES[role], "content": content})
    return messages
