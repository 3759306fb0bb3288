"""Answers on disk, judged or not, and what two policies' answers to the same prompts come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.statistics import win_points
from plumbline.data.records import Row
from plumbline.errors import ArtifactError
from plumbline.runs.artifacts import Artifact

SAMPLES = "samples.parquet"


def write_samples(path: Path, rows: Sequence[Row]) -> None:
    """Write answers as Parquet."""
    import pandas as pd

    pd.DataFrame(list(rows)).to_parquet(path, index=False)


def read_samples(artifact: Artifact) -> list[Row]:
    """Read the answers of an artefact."""
    return read_rows(artifact.path / SAMPLES)


def read_rows(path: Path) -> list[Row]:
    """Read answers from a file."""
    import pyarrow.parquet as pq

    if not path.exists():
        raise ArtifactError(f"There are no answers in {path}.")
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def points_over(rows: Sequence[Row], baseline: Mapping[str, Row], scorer: str) -> list[float]:
    """Return the win points of each row over the baseline's answer (by prompt id) to its prompt.

    The same answer is a tie, even where a scorer's rounding differs from batch to batch.
    """
    theirs = [baseline[row["prompt_id"]] for row in rows]
    scores = [
        row[scorer] if row["response"] == other["response"] else other[scorer]
        for row, other in zip(rows, theirs, strict=True)
    ]
    return win_points([row[scorer] for row in rows], scores)
