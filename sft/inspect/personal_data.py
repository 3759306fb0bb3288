"""Personal data, counted for the page by the recognizers that mask it; there may be other."""

from __future__ import annotations

from functools import cache

from sft.personal_data.config import PersonalDataConfig
from sft.personal_data.mask import Masker
from sft.personal_data.table import RECOGNIZERS


@cache
def _masker() -> Masker:
    recognizers = [row for row in RECOGNIZERS.values() if row.is_installed]
    return Masker(recognizers, PersonalDataConfig().regions)


def find_personal_data(text: str) -> list[tuple[str, str]]:
    """Return kind and text of what the recognizers find."""
    return [(RECOGNIZERS[kind].title, text[start:end]) for start, end, kind in _masker().find(text)]


def shortened(text: str) -> str:
    """Return enough of a text to find it by, and not enough to use it."""
    return f"{text[:2]}…{text[-2:]}" if len(text) > 6 else "…"
