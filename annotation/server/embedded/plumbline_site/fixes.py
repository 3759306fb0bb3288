"""Corrections of Argilla's own defects."""

from __future__ import annotations

from typing import Any

LONGEST_ANSWER = 20_000
"""Characters of a text that a person writes as an answer."""


ACTIVITY_SECONDS = 10
"""How exact the time of a dataset's last activity is, on PostgreSQL."""


def install_for_team() -> None:
    """Let people who answer at once not wait for each other.

    Argilla writes the time of the last activity into the dataset's row with every answer, and locks
    the row until the answer is stored: one answer at a time for the whole queue.
    """
    from datetime import UTC, datetime, timedelta

    from argilla_server.contexts import datasets
    from sqlalchemy import text

    statement = text(
        "UPDATE datasets SET last_activity_at = :now WHERE id IN (SELECT id FROM datasets "
        "WHERE id = :dataset AND (last_activity_at IS NULL OR last_activity_at < :before) "
        "FOR NO KEY UPDATE SKIP LOCKED)"
    )

    async def touch(db: Any, dataset: Any) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        before = now - timedelta(seconds=ACTIVITY_SECONDS)
        await db.execute(statement, {"now": now, "before": before, "dataset": dataset.id})

    datasets._touch_dataset_last_activity_at = touch


def install() -> None:
    """Put the corrected functions in the place of Argilla's."""
    from argilla_server.contexts import datasets
    from argilla_server.errors.future import UnprocessableEntityError
    from argilla_server.validators.response_values import TextQuestionResponseValueValidator

    update = datasets.update_dataset
    validate = TextQuestionResponseValueValidator.validate

    async def update_dataset(db: Any, dataset: Any, attributes: dict[str, Any]) -> Any:
        # Argilla changes the stored dict in place, which SQLAlchemy does not notice: a dataset's
        # metadata would never change. A copy is a new value.
        if "metadata_" in attributes:
            dataset.metadata_ = dict(dataset.metadata_ or {})
        return await update(db, dataset, attributes)

    def validate_with_limit(self: Any) -> None:
        # Argilla accepts a text of any length.
        validate(self)
        if len(self._response_value) > LONGEST_ANSWER:
            raise UnprocessableEntityError(
                f"An answer may have {LONGEST_ANSWER:,} characters, and this one has "
                f"{len(self._response_value):,}."
            )

    datasets.update_dataset = update_dataset
    TextQuestionResponseValueValidator.validate = validate_with_limit
