"""Numbers with a check digit: payment cards, IBANs, Chinese identity numbers; and US SSNs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from sft.personal_data.recognizer import in_a_sum, words_before

_CARD = re.compile(
    r"(?<![\w.=*^-])(?<!\d[ ,])"
    r"(?:\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?"
    r"|\d{4}([ -])\d{6}\2\d{4,5}|\d{6}[ -]\d{10,13})"
    r"(?![\w*=^]|[.,-]\d)",
    re.ASCII,
)
#: First digits of payment cards: Visa, Mastercard, Amex, Diners, JCB, Discover, Maestro, UnionPay.
_ISSUERS = re.compile(r"4|5[0-8]|2[2-7]|3[0456789]|6[0-9]|2131|1800")

_CARD_WORD = re.compile(r"\b(?:card|visa|mastercard|maestro)\b|卡", re.IGNORECASE)
_NOT_A_CARD = re.compile(
    r"\b(?:order|invoice|tracking|serial|ticket|parcel)\b|订单|单号|快递|运单|发票|编号",
    re.IGNORECASE,
)


def find_cards(text: str, regions: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield numbers of payment cards: 12 to 19 digits of an issuer with a right check digit."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if not _ISSUERS.match(digits) or not luhn_holds(digits):
            continue
        if len(digits) == 12 and not words_before(text, match.start(), _CARD_WORD):
            continue  # only some of Maestro's are as short
        # A tenth of all numbers has a right check digit by chance.
        if not words_before(text, match.start(), _NOT_A_CARD) and not in_a_sum(text, *match.span()):
            yield match.span()


def luhn_holds(digits: str) -> bool:
    """Return whether the last digit is right (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?:[ -]?[A-Z0-9]){11,30}")
#: Characters of an IBAN by country, from the IBAN registry.
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28,
    "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23,
    "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20,
    "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30,
    "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
    "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23,
    "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip


def find_ibans(text: str, regions: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield IBANs with the length of their country and right check digits."""
    for match in _IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match[0][:2], 0)
        places = [place for place in range(*match.span()) if text[place].isalnum()][:length]
        iban = "".join(text[place] for place in places)
        end = places[-1] + 1 if places else 0
        touches = text[end : end + 1]
        if (
            len(iban) == length
            and iban_holds(iban)
            and not (touches.isascii() and touches.isalnum())
        ):
            yield match.start(), end


def iban_holds(iban: str) -> bool:
    """Return whether the check digits are right (ISO 13616: mod 97 is 1)."""
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


_SSN = re.compile(
    r"(?<![\w.-])(?!000|666|9)\d{3}([- ]?)(?!00)\d\d\1(?!0000)\d{4}(?![\w-]|\.\d)", re.ASCII
)
_SSN_WORD = re.compile(r"\bssn\b|social security|社会安全|社会保险号", re.IGNORECASE)


def find_us_ssns(text: str, regions: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield US social security numbers: ``123-45-6789``, or behind words that say so."""
    for match in _SSN.finditer(text):
        if match[1] == "-" or words_before(text, match.start(), _SSN_WORD):
            yield match.span()


_CN_ID = re.compile(r"(?<![0-9A-Za-z])\d{6}[ ]?\d{8}[ ]?\d{3}[0-9Xx](?![0-9A-Za-z])", re.ASCII)
_CN_OLD_ID = re.compile(r"(?<![0-9A-Za-z])\d{15}(?![0-9A-Za-z])", re.ASCII)
_CN_ID_WORD = re.compile(r"身份证|证件|\bID\b|identity", re.IGNORECASE)
_CN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
#: The first two digits of a region: provinces and what stands beside them (GB/T 2260).
_CN_PROVINCES = frozenset(
    [
        "11",
        "12",
        "13",
        "14",
        "15",
        "21",
        "22",
        "23",
        "31",
        "32",
        "33",
        "34",
        "35",
        "36",
        "37",
        "41",
        "42",
        "43",
        "44",
        "45",
        "46",
        "50",
        "51",
        "52",
        "53",
        "54",
        "61",
        "62",
        "63",
        "64",
        "65",
        "71",
        "81",
        "82",
        "83",
    ]
)


def find_chinese_ids(text: str, regions: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield Chinese identity numbers with a right check digit, date and province.

    Those of 15 digits, which have no check digit, count behind a word that says so.
    """
    for match in _CN_ID.finditer(text):
        if chinese_id_holds(match[0].replace(" ", "")):
            yield match.span()
    for match in _CN_OLD_ID.finditer(text):
        written = match[0]
        born = f"19{written[6:12]}"
        if (
            written[:2] in _CN_PROVINCES
            and _is_date(born)
            and words_before(text, match.start(), _CN_ID_WORD)
        ):
            yield match.span()


def chinese_id_holds(number: str) -> bool:
    """Return whether an identity number of 18 digits can be one (GB 11643-1999: MOD 11-2)."""
    is_possible = number[:2] in _CN_PROVINCES and _is_date(number[6:14])
    return is_possible and chinese_check_digit_holds(number)


def chinese_check_digit_holds(number: str) -> bool:
    """Return whether the last of 18 digits is right (GB 11643-1999, MOD 11-2)."""
    rest = sum(w * int(digit) for w, digit in zip(_CN_WEIGHTS, number[:17], strict=True)) % 11
    return "10X98765432"[rest] == number[17].upper()


def _is_date(digits: str) -> bool:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year >= 1850
    except ValueError:
        return False
