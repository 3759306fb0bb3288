"""Corrections of Argilla's own defects."""

from __future__ import annotations

from typing import Any


def install() -> None:
    """Put the corrected functions in the place of Argilla's."""
    from argilla_server.contexts import datasets

    update = datasets.update_dataset

    async def update_dataset(db: Any, dataset: Any, attributes: dict[str, Any]) -> Any:
        # Argilla changes the stored dict in place, which SQLAlchemy does not notice: a dataset's
        # metadata would never change. A copy is a new value.
        if "metadata_" in attributes:
            dataset.metadata_ = dict(dataset.metadata_ or {})
        return await update(db, dataset, attributes)

    datasets.update_dataset = update_dataset
