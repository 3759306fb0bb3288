"""Worked answers: whether the result is right, and each calculation on the way."""

from __future__ import annotations

from evaluation.measures.measure import Answers, Columns, Measure
from evaluation.measures.numbers import calculations, result_of


def numeric_accuracy() -> Measure:
    r"""Share of answers that come to the number that a reference comes to.

    The last marked number of both (``####``, ``\boxed{}``, ``Answer:``), else the last number;
    equal as decimals, so 3.50 is 3.5. A row without a number in its references has no value.
    """

    def by_row(answers: Answers) -> Columns:
        values: list[float | None] = []
        for text, references in zip(answers.texts(), answers.references(), strict=True):
            wanted = {result_of(reference) for reference in references} - {None}
            values.append(float(result_of(text) in wanted) if wanted else None)
        return {"numeric_accuracy": values}

    return Measure(
        "numeric_accuracy", "numeric answers right", "share of answers", True, by_row,
        needs=("references", "numbers"),
    )  # fmt: skip


def step_accuracy() -> Measure:
    """Share of the calculations in a worked answer that hold, and how many there are.

    Every equation in the text is worked out in exact fractions (see
    `evaluation.measures.numbers.calculations`). It says whether the arithmetic is right, not
    whether it is the arithmetic that the question asks for: `numeric_accuracy` says that. An answer
    without a calculation has no value.
    """

    def by_row(answers: Answers) -> Columns:
        found = [calculations(text) for text in answers.texts()]
        return {
            "step_accuracy": [
                sum(step.holds for step in steps) / len(steps) if steps else None for steps in found
            ],
            "step_accuracy.calculations": [float(len(steps)) for steps in found],
        }

    return Measure("step_accuracy", "calculations right", "share of calculations", True, by_row)
