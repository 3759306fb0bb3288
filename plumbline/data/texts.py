"""Plain text out of datasets, for training a small base model from scratch."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline.data.records import Conversation, iterate_dataset
from plumbline.runs.artifacts import Artifact

_COLUMNS = ("messages", "prompt", "chosen", "rejected", "completion")


def training_texts(datasets: Sequence[Artifact]) -> list[str]:
    """Return the texts of the training splits, one per row; held-out rows are left out."""
    return [
        "\n".join(dict.fromkeys(_contents(row, columns)))
        for dataset in datasets
        for row in iterate_dataset(dataset.path, "train")
        for columns in ([name for name in _COLUMNS if name in row],)
    ]


def _contents(row: dict[str, Conversation], columns: Sequence[str]) -> list[str]:
    return [message["content"] for column in columns for message in row[column]]
