"""The step of a build that masks personal data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from plumbline.config import Check
from plumbline.data.encryption import data_key
from plumbline.data.records import Row
from sft.cleaning.step import Outcome, RowFunction, Step, StepConfig, StepContext, each
from sft.personal_data.config import PersonalDataConfig
from sft.personal_data.mask import Masker


class PersonalDataStep(StepConfig, PersonalDataConfig):
    """Which personal data is masked, and whether it can be brought back."""

    step: Literal["personal_data"] = "personal_data"

    def checks_before_work(self) -> Sequence[Check]:
        """Read the names and the key, and try what finds telephone numbers."""
        return (partial(check_masking, self),)


def check_masking(config: PersonalDataStep) -> None:
    """Raise an error where the settings cannot be met here."""
    masker = _masker(config)
    masker.mask_row({"messages": [{"role": "user", "content": "Call 020 7946 0018."}]})


def _masker(config: PersonalDataConfig) -> Masker:
    return Masker.of(config, data_key() if config.reversible else None)


def _mask(config: PersonalDataStep, _: StepContext) -> RowFunction:
    masker = _masker(config)

    def step(row: Row) -> Outcome:
        masked, counts = masker.mask_row(row)
        return Outcome((masked,), changes=[f"{kind} was masked" for kind in sorted(counts)])

    return each(step)


PERSONAL_DATA = Step(
    "personal_data",
    "masks e-mail addresses, telephone numbers, cards and the like, English and Chinese",
    PersonalDataStep,
    _mask,
    example={"reversible": True},
)
