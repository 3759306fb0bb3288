"""Files of sampled responses, and the win scores of two policies' responses to the same prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from plumbline.data.records import Row
from plumbline.errors import ArtifactError
from plumbline.runs.artifacts import Artifact
from plumbline.statistics import win_scores

SAMPLES = "samples.parquet"
#: What a reward in bfloat16 may differ by from batch to batch, of its size.
_ROUNDING = 0.02


def write_samples(path: Path, rows: Sequence[Row]) -> None:
    """Write responses as Parquet."""
    import pandas as pd

    pd.DataFrame(list(rows)).to_parquet(path, index=False)


def read_samples(artifact: Artifact) -> list[Row]:
    """Read the responses of an artefact."""
    return read_rows(artifact.path / SAMPLES)


def read_rows(path: Path) -> list[Row]:
    """Read responses from a file."""
    import pyarrow.parquet as pq

    if not path.exists():
        raise ArtifactError(f"There are no responses in {path}.")
    table = pq.read_table(path)
    rows: list[Row] = table.rename_columns(
        [_current_name(c) for c in table.column_names]
    ).to_pylist()
    return rows


def _current_name(column: str) -> str:
    """Return today's name of a column of an older file."""
    if column.endswith("_spread"):
        return f"{column.removesuffix('_spread')}_std"
    return column.replace("nats_a_token", "nats_per_token")


def win_scores_over(rows: Sequence[Row], baseline: Mapping[str, Row], scorer: str) -> list[float]:
    """Return the win score of each row over the baseline's response (by prompt id) to its prompt.

    Equal responses are a tie, also where a scorer's rounding differs from batch to batch. Where a
    file gives equal responses scores that are further apart, its scores decide.
    """
    baseline_rows = [baseline[row["prompt_id"]] for row in rows]
    baseline_scores = [
        row[scorer] if _is_rounding(row, other, scorer) else other[scorer]
        for row, other in zip(rows, baseline_rows, strict=True)
    ]
    return win_scores([row[scorer] for row in rows], baseline_scores)


def _is_rounding(row: Row, other: Row, scorer: str) -> bool:
    """Return whether two scores are of one response, and differ by no more than rounding."""
    return row["response"] == other["response"] and same_up_to_rounding(row[scorer], other[scorer])


def same_up_to_rounding(score: float, other: float) -> bool:
    """Return whether two scores of one response differ by no more than a scorer's rounding."""
    return math.isclose(score, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
