r"""The number that a response comes to: one exact value, or none.

Read are decimals with a point or a comma, groups of thousands, signs, fractions and mixed numbers
(also ``\frac``), per cent, exponents, currency signs and words such as "million". What is not one
number has no value: times and ratios (3:30), dates, ranges (3-4), expressions, coordinates,
variables (5x). So a text has its own value or none, and never that of a part of it.

One text has two readings, and gets that of English: ``1,234`` is 1234, and ``1.234`` is 1.234.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

#: Spaces that group thousands; the ordinary one as well: "1 234".
_SPACE = "[ \u00a0\u2007\u2009\u202f]"
_MINUS = "\\-\u2212\u2010\u2011\u2012\u2013"
_DIGITS = (
    rf"(?:\d{{1,3}}(?:{_SPACE}\d{{3}})+(?!\d)(?:[.,]\d+)?"  # 1 234 567,8
    r"|\d{1,3}(?:['’]\d{3})+(?!\d)(?:\.\d+)?"  # 1'234.5
    r"|\d(?:[.,\u066b\u066c]?\d)*"  # 1,234.5 and all others
    r"|[.,]\d+)"  # .5
)
_EXPONENT = (
    rf"(?:[eE](?P<e>[+{_MINUS}]?\d{{1,3}})(?![\w.])"
    rf"|\s?[×x*·]\s?10\s?\^?\s?[{{(]?(?P<ten>[+{_MINUS}]?\d{{1,3}})[}})]?(?![\w.]))"
)
_NUMBER = re.compile(
    rf"(?P<alone_sign>[+{_MINUS}])?(?P<alone>[¼-¾⅐-⅞])(?P<alone_percent>\s?%)?"  # ½
    rf"|(?P<sign>[+{_MINUS}]\s?)?(?P<currency>[$€£¥₹]\s?)?(?P<sign2>[{_MINUS}])?"
    rf"(?P<whole>{_DIGITS})(?:{_EXPONENT})?"
    rf"(?:(?P<space>\s?)(?P<vulgar>[¼-¾⅐-⅞])"
    rf"|(?:\s(?P<mixed>\d{{1,9}}))?\s?[/⁄]\s?(?P<denominator>{_DIGITS}))?"
    r"(?P<percent>\s?(?:%|‰|percent\b|per\scent\b))?"
    r"(?P<scale>\s?(?:hundred|thousand|million|billion|trillion)\b|(?:k|K|m|M|mn|bn|B)\b)?"
)
_SCALES = {
    "hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "billion": 10**9,
    "trillion": 10**12,
}  # fmt: skip
#: Letters that are a scale of money and otherwise a unit or a name.
_MONEY_SCALES = {"K": 1000, "m": 10**6, "M": 10**6, "mn": 10**6, "bn": 10**9, "B": 10**9}

#: Left of a number: then it is a part of something longer, which has no value of its own.
_PART_LEFT = re.compile(rf"(?:[\d)\]]\s?[{_MINUS}+*/×·÷^:x]\s?|[\d][.,:'’]|[√π^_/:]|\d\s?)\Z")
#: Right of a number, likewise.
_PART_RIGHT = re.compile(
    rf"\s?[{_MINUS}+*/×·÷^:]\s?[$€£]?[\d(]|[.,:'’/]\d|\s?[√π]|[\^_]|\([a-z]"
    r"|/?[a-zA-Z](?![a-zA-Z])(?<![mglhswA-Z])"  # 5x, 2/a; but 5m is a length
)
#: Letters or a hyphen right before it make it a name: x2, covid-19.
_NAME_LEFT = re.compile(rf"[^\W\d](?:[{_MINUS}])?\Z")

_MARK = re.compile(r"####")
_BOXED = re.compile(r"\\boxed\s*\{")
_ANSWER = re.compile(r"\banswer\b(?:\s+is)?\s*[:=]?\s*", re.IGNORECASE)
#: What may stand between a mark and its number.
_FILLER = re.compile(r"[\s*_`~≈=:(\[]*(?:about|approximately|roughly)?[\s*_`~≈=:(\[]*")
_LATEX = (
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\\(?:left|right|displaystyle|mathrm|,|;|!|:)(?![a-zA-Z])"), " "),
    (re.compile(r"\\(?:text|mbox|textbf|mathbf|mathrm)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\^\s*\{?\\circ\}?"), "°"),
    (re.compile(r"\\(?:times|cdot)\s?"), "×"),
    (re.compile(r"\\div\s?"), "÷"),
    (re.compile(r"\\pi\b"), "π"),
    (re.compile(r"\\sqrt"), "√"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([%$#&])"), r"\1"),
    (re.compile(r"\\[()\[\]]"), " "),
    (re.compile(r"~"), " "),
)
_FRAC = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))")


class Number(NamedTuple):
    """A number in a text: its place, and its value, None where it is not one number."""

    start: int
    end: int
    value: Fraction | None


def result_of(text: str) -> Fraction | None:
    r"""Return the number that a text comes to, or None where it comes to no single number.

    The number after the last ``####``, in the last ``\boxed{}`` or after the last ``Answer:``, in
    this order; else the last number of the text.
    """
    text = _plain(text)
    marks = list(_MARK.finditer(text))
    if marks:
        return _first_after(text[marks[-1].end() :])
    boxes = [m.end() for m in _BOXED.finditer(text)]
    if boxes:
        return _whole(_braced(text, boxes[-1]))
    answers = list(_ANSWER.finditer(text))
    for answer in reversed(answers):
        rest = text[answer.end() : answer.end() + 1000]
        filler = _FILLER.match(rest)
        place = filler.end() if filler else 0
        numbers = list(numbers_in(rest[: place + 200]))
        if numbers and numbers[0].start <= place + 1:
            return _after_equals(rest, numbers[0])
    numbers = list(numbers_in(text))
    return numbers[-1].value if numbers else None


def numbers_in(text: str) -> Iterator[Number]:
    """Yield every number of a text in order; the value is None where it is not one number."""
    for match in _NUMBER.finditer(text):
        start, value = match.start(), _value(match)
        left, right = text[max(0, start - 40) : start], text[match.end() : match.end() + 12]
        if _NAME_LEFT.search(left[-2:]):
            continue
        sign = match["sign"] or match["alone_sign"]
        if sign and not _is_sign(sign, left):
            before = left.rstrip()
            if (before and before[-1] in ")]}") or before[-1:].isdigit():
                value = None  # a difference or a range
            elif value is not None and sign.strip() != "+":
                value = -value  # a dash or a bullet, not a minus
        if _PART_LEFT.search(left[-4:]) or _PART_RIGHT.match(right):
            value = None
        yield Number(start, match.end(), value)


def _is_sign(sign: str, left: str) -> bool:
    """Return whether a dash before a number is its sign: nothing stands right before it."""
    if sign != sign.strip():  # "- 5": a sign after "=" or ":" or an opening bracket
        return left.rstrip()[-1:] in tuple("=:([{") and bool(left.strip())
    return not left or left[-1].isspace() or left[-1] in "=:([{,;$€£*_`\"'“‘«>≈~"


def _value(match: re.Match[str]) -> Fraction | None:
    groups = match.groupdict()
    if groups["alone"]:
        groups |= {"vulgar": groups["alone"], "sign": groups["alone_sign"],
                   "percent": groups["alone_percent"]}  # fmt: skip
    value = _decimal(groups["whole"]) if groups["whole"] else Fraction(0)
    if value is None:
        return None
    exponent = groups["e"] or groups["ten"]
    if exponent:
        value *= Fraction(10) ** int(re.sub(f"[{_MINUS}]", "-", exponent))
    if groups["vulgar"]:
        value += Fraction(unicodedata.normalize("NFKC", groups["vulgar"]).replace("⁄", "/"))
    if groups["denominator"]:
        denominator = _decimal(groups["denominator"])
        if not denominator:
            return None
        mixed = groups["mixed"]
        value = value + int(mixed) / denominator if mixed else value / denominator
    scale = (groups["scale"] or "").strip()
    if scale in _MONEY_SCALES and not groups["currency"]:
        if scale != "m":
            return None
    else:
        value *= (_SCALES | _MONEY_SCALES).get(scale, 1)
    percent = (groups["percent"] or "").strip()
    if percent:
        value /= 1000 if percent == "‰" else 100
    signs = (groups["sign"] or "") + (groups["sign2"] or "")
    return -value if re.search(f"[{_MINUS}]", signs) else value


def _decimal(text: str) -> Fraction | None:
    """Return the value of digits with separators, or None where they are no number."""
    text = re.sub(rf"{_SPACE}|['’]", "", text).replace("\u066b", ".").replace("\u066c", ",")
    if "." in text and "," in text:
        decimal = max(".", ",", key=text.rfind)
        group = "," if decimal == "." else "."
        head, _, tail = text.rpartition(decimal)
        if decimal in head or not re.fullmatch(rf"\d{{1,3}}(?:\{group}\d{{3}})+", head):
            return None
        text = f"{head.replace(group, '')}.{tail}"
    elif re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d{0,2}(?:\.\d{3}){2,}", text):
        text = text.replace(",", "").replace(".", "")
    elif text.count(",") == 1:
        text = text.replace(",", ".")
    if text.count(".") > 1 or "," in text or len(text) > 400:
        return None
    return Fraction(text if text[0] != "." else f"0{text}")


def _plain(text: str) -> str:
    """Return a text with its LaTeX as plain characters, and full-width digits as ordinary ones."""
    text = re.sub(r"[０-９．，％＋－]", lambda m: unicodedata.normalize("NFKC", m[0]), text)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    while True:
        replaced = _FRAC.sub(_as_fraction, text)
        if replaced == text:
            return text
        text = replaced


def _as_fraction(match: re.Match[str]) -> str:
    top, bottom = (match[1] or match[2] or "").strip(), (match[3] or match[4] or "").strip()
    before = match.string[max(0, match.start() - 1) : match.start()]
    space = " " if before.isdigit() else ""
    digits = re.compile(rf"[{_MINUS}]?{_DIGITS}")
    if digits.fullmatch(top) and digits.fullmatch(bottom):
        return f"{space}{top}/{bottom}"
    return "√"  # no number: it makes what it touches no number either


def _braced(text: str, start: int) -> str:
    """Return the text up to the brace that closes the one before ``start``."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return text[start:]


def _whole(text: str) -> Fraction | None:
    """Return the value of a text that is one number, maybe with a unit or after ``=``."""
    text = text.rpartition("=")[2].strip().strip("$").strip()
    numbers = list(numbers_in(text))
    if len(numbers) != 1:
        return None
    (number,) = numbers
    unit = text[number.end :].strip().rstrip(".")
    if text[: number.start].strip() or not re.fullmatch(r"[°€£¥$]?\s?[A-Za-zµ²³/ .]*", unit):
        return None
    return number.value


def _first_after(text: str) -> Fraction | None:
    line = text.strip().partition("\n")[0]
    numbers = list(numbers_in(line))
    return _after_equals(line, numbers[0]) if numbers else None


def _after_equals(text: str, number: Number) -> Fraction | None:
    """Return a number, or what the equation that it begins comes to."""
    if number.value is None:
        sentence = re.split(r"[.;]\s|\n", text[number.start :])[0]
        if "=" in sentence:
            numbers = list(numbers_in(sentence.rpartition("=")[2]))
            return numbers[0].value if numbers else None
    return number.value
