"""Label records: one vote of one person on one pair, or of a model in their place.

Simulated labellers, people in Argilla, files and judges all write this same record, each with its
source, so that nothing downstream asks where a label came from unless it wants to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from plumbline.errors import DataError

LABELS_FILE = "labels.parquet"
Choice = Literal["a", "b", "tie", "both_bad"]
CHOICES: tuple[Choice, ...] = ("a", "b", "tie", "both_bad")
Purpose = Literal["vote", "gold", "repeat", "adjudication"]
PURPOSES: tuple[Purpose, ...] = ("vote", "gold", "repeat", "adjudication")


@dataclass(frozen=True, slots=True)
class Label:
    """One vote on one pair."""

    pair_id: str
    annotator: str
    """A pseudonym."""
    source: str
    """What kind of annotator: ``simulated``, ``argilla``, ``file`` or ``llm``."""
    choice: Choice
    """Which response is better, by its name in the pair."""
    created_at: str
    """When, as ISO 8601 in UTC."""
    shown_first: Literal["a", "b"]
    """Which response the annotator saw first (or on the left)."""
    rationale: str = ""
    """Why, in the annotator's words."""
    strength: int | None = None
    """By how much, from 1 (slightly) to 3 (much); null where it was not asked."""
    aspects: dict[str, str] = field(default_factory=dict)
    """Choices on single aspects, where they were asked."""
    flags: tuple[str, ...] = ()
    """What else the annotator noted, such as ``unsafe``."""
    purpose: Purpose = "vote"
    """Why this pair was put before this annotator: for its vote; as a ``gold`` item, whose answer
    is known; as a ``repeat`` of a pair they had before; or for the ``adjudication`` of others'
    votes. Only votes are counted as votes."""

    def __post_init__(self) -> None:
        for name, allowed in (("choice", CHOICES), ("purpose", PURPOSES)):
            value = getattr(self, name)
            if value not in allowed:
                raise DataError(
                    f"Label by {self.annotator!r} on {self.pair_id}: the {name} {value!r} is "
                    f"none of {', '.join(allowed)}."
                )


def write_labels(folder: Path, labels: Sequence[Label]) -> None:
    """Write labels as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Declared, not inferred: a file of labels without rationales has the same columns.
    schema = pa.schema(
        [
            ("pair_id", pa.string()),
            ("annotator", pa.string()),
            ("source", pa.string()),
            ("choice", pa.string()),
            ("created_at", pa.string()),
            ("shown_first", pa.string()),
            ("rationale", pa.string()),
            ("strength", pa.int8()),
            ("aspects", pa.map_(pa.string(), pa.string())),
            ("flags", pa.list_(pa.string())),
            ("purpose", pa.string()),
        ]
    )
    rows = [asdict(label) | {"aspects": list(label.aspects.items())} for label in labels]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / LABELS_FILE)


def read_labels(folder: Path) -> list[Label]:
    """Read what `write_labels` wrote."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / LABELS_FILE).to_pylist()
    return [
        Label(**(row | {"aspects": dict(row["aspects"]), "flags": tuple(row["flags"])}))
        for row in rows
    ]
