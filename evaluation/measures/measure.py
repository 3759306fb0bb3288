"""What a measure is: numbers about responses that exist already.

A measure never samples. It reads the rows that the responses of a policy were written as, so an
additional measure costs the time of that measure and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from plumbline.data.records import Row
from plumbline.statistics import mean_and_se

if TYPE_CHECKING:
    from plumbline.lm.policy import Policy

Need = Literal["references", "numbers", "reference_model", "policy"]
"""References in the rows; references that hold a number; log-probabilities by the reference model
(they stand in the rows); the policy itself."""

Columns = Mapping[str, Sequence[float | None]]
"""One value per row for each column; None where the measure does not apply to a row."""
Metrics = Mapping[str, float | None]


@dataclass(frozen=True)
class Responses:
    """Responses to measure, and the policy that gave them where a measure needs it."""

    rows: Sequence[Row]
    policy: Policy | None = None

    def texts(self) -> list[str]:
        """Return the texts of the responses."""
        return [str(row["response"]) for row in self.rows]

    def references(self) -> list[list[str]]:
        """Return the references of each row; an empty list where it has none."""
        return [list(row.get("references") or ()) for row in self.rows]


@dataclass(frozen=True)
class Measure:
    """A named measure: per row, of the whole set, or both."""

    name: str
    title: str
    unit: str
    higher_is_better: bool | None
    """None where neither direction is better in itself."""
    by_row: Callable[[Responses], Columns] | None = None
    of_set: Callable[[Responses, Columns], Metrics] | None = None
    """Also gets the columns that ``by_row`` made."""
    needs: tuple[Need, ...] = ()
    caution: str = ""
    """What a reader must know before trusting it; stands below the tables."""

    def problem(self, responses: Responses) -> str | None:
        """Return why these responses cannot be measured, or None where they can."""
        if "references" in self.needs and not any(responses.references()):
            return "no row has references"
        if "numbers" in self.needs:
            from plumbline.data.numbers import result_of

            texts = [text for row in responses.references() for text in row]
            if not any(result_of(text) is not None for text in texts):
                return "no reference has a number"
        if "reference_model" in self.needs and not any(
            row.get("reference_logprob") is not None for row in responses.rows
        ):
            return "there is no reference model with the same tokenizer"
        if "policy" in self.needs and responses.policy is None:
            return "there are only responses, and not the policy itself"
        return None


def add_columns(measure: Measure, responses: Responses) -> str | None:
    """Add the columns of a measure to the rows; return why it does not apply, or None."""
    problem = measure.problem(responses)
    if problem is None and measure.by_row is not None:
        for name, values in measure.by_row(responses).items():
            for row, value in zip(responses.rows, values, strict=True):
                row[name] = value
    return problem


def measure_metrics(measure: Measure, rows: Sequence[Row]) -> dict[str, float]:
    """Return the metrics of a measure from rows that have its columns.

    A column with the name of the measure becomes a metric of that name: the mean over the rows
    that have a value, with ``_se``, the standard error of that mean over prompts (0 for one row).
    A part (``name.part``) becomes its mean alone. A metric without a value is left out.
    """
    columns = {
        name: [row.get(name) for row in rows]
        for name in (rows[0] if rows else ())
        if name == measure.name or name.startswith(f"{measure.name}.")
    }
    if measure.by_row is not None and not columns:
        return {}  # the measure did not apply
    metrics: dict[str, float] = {}
    for name, values in columns.items():
        metrics |= column_metrics(name, values, with_se=name == measure.name)
    responses = Responses(rows)
    if measure.of_set is not None and (
        measure.by_row is not None or not measure.problem(responses)
    ):
        set_metrics = measure.of_set(responses, columns)
        metrics |= {name: float(value) for name, value in set_metrics.items() if value is not None}
    return metrics


def column_metrics(name: str, values: Sequence[float | None], *, with_se: bool) -> dict[str, float]:
    """Return the mean over the rows that have a value, and its standard error if wanted."""
    known = [float(value) for value in values if value is not None]
    if not known:
        return {}
    estimate = mean_and_se(known)
    return {name: estimate.mean} | ({f"{name}_se": estimate.se} if with_se else {})


def by_text(function: Callable[[str], float | None], name: str) -> Callable[[Responses], Columns]:
    """Return a measure by row that looks at the text of each response alone."""
    return lambda responses: {name: [function(text) for text in responses.texts()]}
