"""Wrong answers beside the right one of a demonstration.

A row's column ``wrong_answers`` holds them as a JSON list of texts. Each stands behind the same
prompt as the row's last response, which is the right one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from plumbline.data.records import Row

WRONG_ANSWERS = "wrong_answers"


def wrong_answers_of(row: Row) -> list[str]:
    """Return the wrong answers of a row, as texts or as a dataset holds them."""
    held = row.get(WRONG_ANSWERS)
    texts: list[str] = json.loads(held) if isinstance(held, str) else list(held or ())
    return texts


def written(texts: Sequence[str]) -> str:
    """Return wrong answers as a dataset holds them."""
    return json.dumps(list(texts), ensure_ascii=False)


def with_wrong_answers(row: Row, change: Callable[[str], str]) -> Row:
    """Return a row with each wrong answer changed; the row itself where nothing was."""
    before = wrong_answers_of(row)
    after = [change(text) for text in before]
    return row if after == before else row | {WRONG_ANSWERS: written(after)}
