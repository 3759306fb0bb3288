"""Many responses to each prompt with a gold score: what over-optimisation is measured on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from plumbline.data.files import read_records
from plumbline.data.records import Conversation, user
from plumbline.data.sources import Source
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.statistics.crossed_effects import Floats

RESPONSES = "responses.parquet"
_OTHER_COLUMNS = ("prompt", "prompt_id", "response")


class ScoredSamples(NamedTuple):
    """N responses to each of P prompts, in order of prompts, with their scores."""

    prompts: list[Conversation]
    """The prompt of each response, [P * N]."""
    responses: list[str]
    gold: Floats
    """[P, N]"""
    others: dict[str, Floats]
    """Other scores by their column, [P, N] each."""


def read_samples(source: Artifact | Source, gold: str) -> ScoredSamples:
    """Read samples: rows of ``prompt`` (or ``prompt_id``), ``response`` and scores.

    Raises `DataError` where a column is missing, or prompts have different numbers of responses.
    """
    rows = _rows(source)
    place = source.id if isinstance(source, Artifact) else source.place
    if not rows:
        raise DataError(f"{place} has no rows, so nothing can be optimised.")
    key = "prompt" if "prompt" in rows[0] else "prompt_id"
    for column in (key, "response", gold):
        if column not in rows[0]:
            raise DataError(
                f"{place} has no column {column!r}; it has {', '.join(rows[0])}. Samples need "
                f"prompt, response and the gold score (--gold-column)."
            )
    by_prompt: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_prompt[str(row[key])].append(row)
    counts = sorted({len(group) for group in by_prompt.values()})
    if len(counts) > 1:
        raise DataError(
            f"{place} has {counts[0]} to {counts[-1]} responses per prompt. Best of n needs as "
            "many to each: leave the others out."
        )
    ordered = [row for group in by_prompt.values() for row in group]
    shape = (len(by_prompt), counts[0])
    scores = [name for name in rows[0] if name not in _OTHER_COLUMNS and _is_score(ordered, name)]
    if gold not in scores:
        raise DataError(f"{place}: the column {gold!r} holds something that is not a number.")
    matrices = {name: np.array([float(r[name]) for r in ordered]).reshape(shape) for name in scores}
    return ScoredSamples(
        [_conversation(row[key]) for row in ordered],
        [str(row["response"]) for row in ordered],
        matrices.pop(gold),
        matrices,
    )


def _rows(source: Artifact | Source) -> list[dict[str, Any]]:
    if isinstance(source, Artifact):
        return [dict(record) for _, record in read_records(source.path / RESPONSES)]
    return [dict(row.record) for row in source.rows() if row.record is not None]


def _is_score(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return all(
        isinstance(row.get(name), int | float) and not isinstance(row[name], bool) for row in rows
    )


def _conversation(prompt: Any) -> Conversation:
    return [user(prompt)] if isinstance(prompt, str) else [dict(m) for m in prompt]  # type: ignore[misc]
