"""The steps of a build: one table, and how a config's list of them is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError
from ruamel.yaml.comments import CommentedMap

from plumbline.config.explain import explain
from plumbline.data.records import Row
from plumbline.errors import DataError, brief
from plumbline.tables import Table, code_of
from sft.augmentation.rewriting import BACK_TRANSLATION, PARAPHRASE
from sft.augmentation.step import SURFACE_EDITS
from sft.cleaning.answers import REFUSALS, REPETITION
from sft.cleaning.language import LANGUAGE
from sft.cleaning.scores import CLASSIFIER, CONFIDENCE, QUALITY
from sft.cleaning.step import Outcome, RowFunction, Step, StepConfig, StepContext, each
from sft.cleaning.text import UNICODE
from sft.cleaning.turns import LENGTH, ROLES
from sft.duplicates.contamination import CONTAMINATION
from sft.duplicates.exact import EXACT_DUPLICATES
from sft.duplicates.near import NEAR_DUPLICATES
from sft.personal_data.step import PERSONAL_DATA


class OwnStepConfig(StepConfig):
    """A function of the user's own as a step."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Given to the function by name, beside the row."""

    def identity(self) -> dict[str, Any]:
        """Return the values that determine the result, the function's code among them."""
        return super().identity() | {"code": code_of(self.step)}


def _own_step(path: str, function: Callable[..., Any]) -> Step:
    """Make a step of a user's own function.

    It takes a row and returns it, changed or not; None, or a `ValueError` with the reason, leaves
    the row out.
    """

    def prepare(config: OwnStepConfig, _: StepContext) -> RowFunction:
        return each(lambda row: _call(path, function, row, config.settings))

    return Step(path, f"your own function {path}", OwnStepConfig, prepare)


def _call(
    path: str, function: Callable[..., Any], row: Row, settings: Mapping[str, Any]
) -> Outcome:
    try:
        returned = function(row, **settings)
    except ValueError as problem:
        return Outcome(reason=str(problem) or f"{path} leaves it out")
    except Exception as problem:  # the user's own code may raise anything
        raise DataError(
            f"{row['origin']}, row {row['row']}: the step {path} raised "
            f"{type(problem).__name__}: {problem}. Let it raise ValueError to leave a row out."
        ) from None
    if returned is None:
        return Outcome(reason=f"{path} leaves it out")
    if not isinstance(returned, dict) or "messages" not in returned:
        raise DataError(
            f"{row['origin']}, row {row['row']}: the step {path} returned "
            f"{type(returned).__name__}; it must return the row, with its messages, or None."
        )
    return Outcome((returned,), changes=(f"changed by {path}",) if returned != row else ())


STEPS = Table(
    "step",
    (
        UNICODE,
        ROLES,
        LENGTH,
        LANGUAGE,
        REPETITION,
        REFUSALS,
        CONFIDENCE,
        QUALITY,
        CLASSIFIER,
        EXACT_DUPLICATES,
        NEAR_DUPLICATES,
        CONTAMINATION,
        PERSONAL_DATA,
        SURFACE_EDITS,
        PARAPHRASE,
        BACK_TRANSLATION,
    ),
    from_function=_own_step,
)


def read_step(value: Any, number: int) -> StepConfig:
    """Read one entry of a config's list: a step's name, or its settings with ``step`` among them.

    Raises `ValueError` that says what is wrong with which step.
    """
    if isinstance(value, StepConfig):
        return value
    settings = {"step": value} if isinstance(value, str) else value
    if not isinstance(settings, Mapping) or not isinstance(settings.get("step"), str):
        raise ValueError(
            f"step {number} is {brief(value)}; write a step's name, or its settings with "
            f"`step: NAME` among them. Steps are: {STEPS.choices}"
        )
    try:
        row = STEPS[settings["step"]]
    except KeyError as error:
        raise ValueError(f"step {number}: {error.args[0]}") from None
    try:
        return row.settings.model_validate_json(json.dumps(settings, default=str), strict=True)
    except ValidationError as error:
        place = f"step {number} ({row.name})"
        problems = [
            explain(row.settings, CommentedMap(settings), problem, place, [])
            for problem in error.errors(include_url=False)
        ]
        raise ValueError("; ".join(problem.rstrip(".") for problem in problems)) from None


def _read_steps(value: Any) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    steps = [read_step(entry, number) for number, entry in enumerate(value, 1)]
    new_rows = [step.step for step in steps if STEPS[step.step].makes_rows]
    behind = [step.step for step in steps[len(steps) - len(new_rows) :]]
    if behind != new_rows:
        raise ValueError(
            f"{new_rows[0]} makes new rows, of training rows alone, so it runs after the split: "
            "put it behind all steps that make none"
        )
    return tuple(steps)


#: The type of a list of steps in a config.
Steps = Annotated[tuple[SerializeAsAny[StepConfig], ...], BeforeValidator(_read_steps)]
