"""Personal data by its form: counted for the page, never a promise that there is no other."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from plumbline.tables import Table
from sft.personal_data.numbers import chinese_check_digit_holds, iban_holds, luhn_holds


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn_holds(digits)


def _is_iban(text: str) -> bool:
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and iban_holds(plain)


@dataclass(frozen=True)
class PersonalData:
    """A kind of personal data that is known by its form."""

    name: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = lambda text: True
    """What else must be true of a match, such as its check digit."""


PERSONAL_DATA = Table(
    "kind of personal data",
    (
        PersonalData(
            "e-mail address",
            re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"),
        ),
        PersonalData(
            "card number", re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])"), _is_card
        ),
        PersonalData(
            "IBAN",
            re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"),
            _is_iban,
        ),
        PersonalData(
            "IP address",
            re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)"
                       r"(?![\d.])"),
        ),
        PersonalData("Chinese mobile number", re.compile(r"(?<!\d)1[3-9]\d{9}(?!\d)")),
        PersonalData(
            "Chinese identity number",
            re.compile(r"(?<!\d)\d{17}[\dXx](?!\d)"),
            chinese_check_digit_holds,
        ),
    ),
)  # fmt: skip


def find_personal_data(text: str) -> list[tuple[str, str]]:
    """Return kind and text of what looks like personal data."""
    return [
        (kind.name, match[0])
        for kind in PERSONAL_DATA.values()
        for match in kind.pattern.finditer(text)
        if kind.holds(match[0])
    ]


def shortened(text: str) -> str:
    """Return enough of a text to find it by, and not enough to use it."""
    return f"{text[:2]}…{text[-2:]}" if len(text) > 6 else "…"
