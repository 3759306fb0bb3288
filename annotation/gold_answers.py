"""The known answers of gold items, in a file of their own beside the labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from plumbline.data.labels import CHOICES, Choice
from plumbline.errors import DataError
from plumbline.runs.artifacts import read_json, write_json

GOLD_FILE = "gold.json"
"""The known answer of each gold item, by the pair's id."""


def write_gold(folder: Path, answers: Mapping[str, Choice]) -> None:
    """Write the known answers of gold items beside labels."""
    write_json(folder / GOLD_FILE, dict(answers))


def read_gold(folder: Path) -> dict[str, Choice]:
    """Return the known answers of gold items; none where there is no file of them."""
    path = folder / GOLD_FILE
    if not path.exists():
        return {}
    answers: dict[str, Choice] = read_json(path)
    for pair_id, answer in answers.items():
        if answer not in CHOICES:
            raise DataError(
                f"{path}: the known answer of {pair_id} is {answer!r}, which is none of "
                f"{', '.join(CHOICES)}."
            )
    return answers
