"""What a measure is: numbers about answers that are there already.

A measure never samples. It reads the rows that a policy's answers were written as, so that one
more measure costs the time of that measure and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evaluation.statistics import mean_and_error
from plumbline.data.records import Row

if TYPE_CHECKING:
    from plumbline.lm.policy import Policy

Need = Literal["references", "numbers", "reference_model", "policy"]
"""References in the rows; references that hold a number; the log-probabilities that the reference
model gives (they stand in the rows); the policy itself."""

Columns = Mapping[str, Sequence[float | None]]
"""One value a row for each column; None where the measure has nothing to say of a row."""
Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class Answers:
    """Answers to measure, and the policy that gave them where a measure needs it."""

    rows: Sequence[Row]
    policy: Policy | None = None

    def texts(self) -> list[str]:
        """Return the responses."""
        return [str(row["response"]) for row in self.rows]

    def references(self) -> list[list[str]]:
        """Return each row's references; an empty list where it has none."""
        return [list(row.get("references") or ()) for row in self.rows]


@dataclass(frozen=True)
class Measure:
    """A named measure, by row, of the whole set, or both."""

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    """None where neither direction is good in itself."""
    by_row: Callable[[Answers], Columns] | None = None
    of_set: Callable[[Answers, Columns], Figures] | None = None
    """Gets the columns that ``by_row`` made, too."""
    needs: tuple[Need, ...] = ()

    def problem(self, answers: Answers) -> str | None:
        """Return why the answers cannot be measured so, or None where they can."""
        if "references" in self.needs and not any(answers.references()):
            return "it needs references, and no row has any"
        if "numbers" in self.needs:
            from evaluation.measures.numbers import result_of

            if not any(
                result_of(text) is not None for texts in answers.references() for text in texts
            ):
                return "it needs a number in the references, and none has one"
        if "reference_model" in self.needs and not any(
            row.get("reference_logprob") is not None for row in answers.rows
        ):
            return "it needs a reference model with the same tokenizer"
        if "policy" in self.needs and answers.policy is None:
            return "it needs the policy itself, and there are only its answers"
        return None


def add_columns(measure: Measure, answers: Answers) -> str | None:
    """Add a measure's columns to the rows; return why it cannot be taken, or None where it was."""
    problem = measure.problem(answers)
    if problem is None and measure.by_row is not None:
        for name, values in measure.by_row(answers).items():
            for row, value in zip(answers.rows, values, strict=True):
                row[name] = value
    return problem


def figures_of(measure: Measure, rows: Sequence[Row]) -> dict[str, float]:
    """Return a measure's figures from rows that have its columns.

    A column that bears the measure's name makes a figure of that name, its mean over the rows that
    have a value, with ``_error``, the standard error of that mean over prompts (0 for one row). A
    part (``name.part``) makes its mean alone. A figure without a value is left away.
    """
    columns = {
        name: [row.get(name) for row in rows]
        for name in (rows[0] if rows else ())
        if name == measure.name or name.startswith(f"{measure.name}.")
    }
    if measure.by_row is not None and not columns:
        return {}  # it could not be taken
    figures: dict[str, float] = {}
    for name, values in columns.items():
        figures |= column_figures(name, values, with_error=name == measure.name)
    answers = Answers(rows)
    if measure.of_set is not None and (measure.by_row is not None or not measure.problem(answers)):
        found = measure.of_set(answers, columns)
        figures |= {name: float(value) for name, value in found.items() if value is not None}
    return figures


def column_figures(
    name: str, values: Sequence[float | None], *, with_error: bool
) -> dict[str, float]:
    """Return the mean over the rows that have a value, and its standard error if wanted."""
    known = [float(value) for value in values if value is not None]
    if not known:
        return {}
    estimate = mean_and_error(known)
    return {name: estimate.mean} | ({f"{name}_error": estimate.error} if with_error else {})


def by_text(function: Callable[[str], float | None], name: str) -> Callable[[Answers], Columns]:
    """Return a measure by row that looks at each response alone."""
    return lambda answers: {name: [function(text) for text in answers.texts()]}
