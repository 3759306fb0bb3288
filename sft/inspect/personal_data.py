"""Personal data, counted for the page by the recognizers that mask it; there may be other."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from sft.personal_data.config import PersonalDataConfig
from sft.personal_data.mask import Masker
from sft.personal_data.table import RECOGNIZERS

#: What the page calls each kind.
TITLES = {
    "email": "e-mail address",
    "iban": "IBAN",
    "cn_id": "Chinese identity number",
    "card": "card number",
    "us_ssn": "US social security number",
    "ip": "IP address",
    "phone": "telephone number",
}
#: The kind that needs a package (the extra ``privacy``).
PHONE, PHONE_PACKAGE = "phone", "phonenumbers"


@cache
def _masker() -> Masker:
    kinds = tuple(k for k in RECOGNIZERS if k != PHONE or looks_for_phone_numbers())
    regions = PersonalDataConfig().regions
    return Masker([RECOGNIZERS[kind] for kind in kinds], regions)


def looks_for_phone_numbers() -> bool:
    """Return whether the package is here that knows telephone numbers."""
    return find_spec(PHONE_PACKAGE) is not None


def find_personal_data(text: str) -> list[tuple[str, str]]:
    """Return kind and text of what the recognizers find."""
    return [(TITLES[kind], text[start:end]) for start, end, kind in _masker().find(text)]


def shortened(text: str) -> str:
    """Return enough of a text to find it by, and not enough to use it."""
    return f"{text[:2]}…{text[-2:]}" if len(text) > 6 else "…"
