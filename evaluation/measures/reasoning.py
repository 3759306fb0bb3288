"""Worked solutions: whether the result is right, and whether each calculation holds."""

from __future__ import annotations

from evaluation.measures.calculations import calculations
from evaluation.measures.measure import Columns, Measure, Responses
from plumbline.data.numbers import result_of


def numeric_accuracy() -> Measure:
    r"""Share of responses whose result is the number of a reference.

    The result is the last marked number (``####``, ``\boxed{}``, ``Answer:``), else the last
    number; `plumbline.data.numbers` says what a number is. Numbers compare exactly, so 3.50
    is 7/2, and 5% is 0.05. A response that comes to no single number (3:30, 5x) is wrong, and
    counts in ``numeric_accuracy.unreadable``. A row without a number in its references has no
    value.
    """

    def by_row(responses: Responses) -> Columns:
        columns: dict[str, list[float | None]] = {
            "numeric_accuracy": [],
            "numeric_accuracy.unreadable": [],
        }
        for text, references in zip(responses.texts(), responses.references(), strict=True):
            reference_numbers = {result_of(reference) for reference in references} - {None}
            number = result_of(text)
            known = bool(reference_numbers)
            columns["numeric_accuracy"].append(
                float(number in reference_numbers) if known else None
            )
            columns["numeric_accuracy.unreadable"].append(float(number is None) if known else None)
        return columns

    return Measure(
        "numeric_accuracy", "correct numeric results", "share of responses", True, by_row,
        needs=("references", "numbers"),
    )  # fmt: skip


def step_accuracy() -> Measure:
    """Share of the calculations in a worked solution that hold, and their number.

    Every equation in the text is evaluated in exact fractions (see
    `evaluation.measures.calculations.calculations`). It shows whether the arithmetic is right, not
    whether it is the arithmetic that the question asks for; `numeric_accuracy` shows that. A
    response without a calculation has no value.
    """

    def by_row(responses: Responses) -> Columns:
        steps_by_row = [calculations(text) for text in responses.texts()]
        return {
            "step_accuracy": [
                sum(step.holds for step in steps) / len(steps) if steps else None
                for steps in steps_by_row
            ],
            "step_accuracy.calculations": [float(len(steps)) for steps in steps_by_row],
        }

    return Measure("step_accuracy", "correct calculations", "share of calculations", True, by_row)
