"""Corrections of Argilla's own defects."""

from __future__ import annotations

from typing import Any

LONGEST_ANSWER = 20_000
"""Characters of a text that a person writes as an answer."""


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
