"""Format errors: responses that are empty, cut off, hold template tokens or fail a checker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evaluation.measures.measure import Columns, Measure, Responses
from plumbline.data.checkers import Checker
from plumbline.lm.chat import ROLE_TOKENS

_TEMPLATE_TOKEN = re.compile(
    "|".join(re.escape(token) for token in (*ROLE_TOKENS, "<|im_start|>", "<|im_end|>"))
)


def format_errors(checker: Checker | None = None) -> Measure:
    """Share of responses with a format error, and the share with each kind of error.

    Empty; cut off before the end; a token of the chat template inside the text; and what the
    checker of the task finds.
    """
    kinds = ("empty", "cut_off", "marks", *(() if checker is None else ("checker",)))

    def by_row(responses: Responses) -> Columns:
        columns: dict[str, list[float | None]] = {kind: [] for kind in kinds}
        for row in responses.rows:
            errors = _errors(row, checker)
            for kind in kinds:
                columns[kind].append(float(errors[kind]))
        any_error = [float(any(values)) for values in zip(*columns.values(), strict=True)]
        return {"format_errors": any_error} | {
            f"format_errors.{kind}": values for kind, values in columns.items()
        }

    return Measure(
        "format_errors", "responses with a format error", "share of responses", False, by_row
    )


def _errors(row: Mapping[str, Any], checker: Checker | None) -> dict[str, bool]:
    text, prompt = str(row["response"]), row["prompt"]
    return {
        "empty": not text.strip(),
        # Samples of other tools may not say whether they came to their end.
        "cut_off": row.get("finished") is not None and not row["finished"],
        "marks": _TEMPLATE_TOKEN.search(text) is not None,
        "checker": checker is not None and checker.problem(prompt, text) is not None,
    }
