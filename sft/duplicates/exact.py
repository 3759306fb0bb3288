"""Exact duplicates: rows that say the same, but for case and white space."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from plumbline.data.records import CONVERSATIONS, Row
from sft.cleaning.step import Compared, Comparison, Removal, Step, StepConfig

_KEY_BYTES = 16
_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_HALVES = np.dtype([("high", "<u8"), ("low", "<u8")])


class ExactDuplicatesConfig(StepConfig):
    """Which rows say the same."""

    step: Literal["exact_duplicates"] = "exact_duplicates"
    of: Literal["row", "prompt"] = "row"
    """row: what is said in all turns. prompt: all turns but the last, so that one answer to each
    prompt is kept, the first."""


def exact_key(row: Row, of: str = "row") -> bytes:
    """Return 16 bytes that are equal for rows that say the same (XXH3, 128 bits).

    Case and white space make no difference; roles, calls of tools and the order of turns do.
    """
    import xxhash

    dialogues = [
        [
            [turn["role"], " ".join(turn["content"].casefold().split()), turn.get("tool_calls")]
            for turn in row[column]
        ]
        for column in CONVERSATIONS
        if column in row
    ]
    if of == "prompt":
        dialogues = [turns[:-1] for turns in dialogues]
    text = _as_json(dialogues)
    return bytes(xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass")))


def _key(config: ExactDuplicatesConfig) -> Callable[[Row], bytes]:
    return lambda row: exact_key(row, config.of)


def _decide(config: ExactDuplicatesConfig, rows: Compared) -> Iterator[Removal]:
    """Leave out each row whose key an earlier row has."""
    keys = np.concatenate([np.asarray(block).reshape(-1).view(_HALVES) for block in rows.keys])
    places = np.flatnonzero(rows.alive)
    first = first_of_equals(keys[places])
    what = "repeats an earlier row" if config.of == "row" else "repeats an earlier row's prompt"
    for number in np.flatnonzero(first != np.arange(len(places))):
        kept = rows.row(int(places[first[number]]))
        detail = {"repeats": {"origin": kept["origin"], "row": kept["row"]}}
        yield Removal(int(places[number]), what, detail)


def first_of_equals(keys: np.ndarray) -> np.ndarray:
    """Return for each key, [N] pairs of 64 bits, the place of the first equal one: [N]."""
    order = np.lexsort((keys["low"], keys["high"]))  # stable, so that the first of equals leads
    ordered = keys[order]
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    first = np.empty(len(keys), np.int64)
    first[order] = order[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    return first


EXACT_DUPLICATES = Step(
    "exact_duplicates",
    "rows that say the same as an earlier one, but for case and white space, in any source and "
    "split",
    ExactDuplicatesConfig,
    compare=Comparison(lambda _: _KEY_BYTES, _key, _decide),
)
