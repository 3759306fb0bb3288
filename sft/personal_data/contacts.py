"""E-mail addresses, telephone numbers and network addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from plumbline.errors import ConfigError
from sft.personal_data.recognizer import in_a_sum, words_before

# Only ASCII letters: in Chinese text the words around an address touch it.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+@-])[A-Za-z0-9][A-Za-z0-9._%+'-]{0,63}"
    r"(?:@|\s?[\[(]at[\])]\s?)"
    r"(?:[A-Za-z0-9-]{1,63}(?:\.|\s?[\[(]dot[\])]\s?)){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)


def find_emails(text: str, regions: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield e-mail addresses, also those written ``name [at] host [dot] org``."""
    if "@" in text or "at]" in text or "at)" in text:
        for match in _EMAIL.finditer(text):
            yield match.span()


_IPV4 = re.compile(
    r"(?:(?<![\w.-])(?<!\d:)|(?<=IP))(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)", re.ASCII
)
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z_.])(?<![0-9A-Fa-f:]:)(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z_:])"
)
_VERSION = re.compile(r"\b(?:version|release|build|upgrade|firmware|v)\b|版本|升级", re.IGNORECASE)


def find_ip_addresses(text: str, regions: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield IPv4 and IPv6 addresses that can be somebody's.

    Left alone: this machine, no address, all addresses of a network, network masks, versions.
    """
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            if _is_address(match[0]) and not words_before(text, match.start(), _VERSION):
                yield match.span()


def _is_address(written: str) -> bool:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not (written.startswith(("255.", "0.")) or written.endswith((".0", ".255")))
    # ``abc::def`` is also how programs write a name in a name space.
    return any(character.isdigit() for character in written)


_PHONE = re.compile(
    r"(?<![\w./=#@%$€£¥*^<-])(?<!\d,)(?:\+|\(\+?)?\d(?:[\s().-]{0,3}\d){6,16}"
    r"(?:\s?(?:x|ext\.?|转)\s?\d{1,6})?(?![\w%@/*=^]|-\d)",
    re.ASCII,
)
_EXTENSION = re.compile(r"\s?(?:x|ext\.?|转)\s?\d{1,6}$")
# [2-9] begins an area and an exchange in North America.
_NORTH_AMERICA = re.compile(
    r"(?:\+?1[-. ]?|001[-. ]?)?(?:\([2-9]\d\d\)\s?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{4}", re.ASCII
)
_CHINA_MOBILE = re.compile(
    r"(?:(?:\+|00)?\(?\+?86\)?[- ]?)?1[3-9]\d"
    r"(?:[- ]?\d{4}[- ]?\d{4}|[- ]?\d{3}[- ]?\d{3}[- ]?\d\d)",
    re.ASCII,
)
_PHONE_WORD = re.compile(
    r"\b(?:phone|telephone|tel|call|dial|ring|fax|cell|mobile|whatsapp|sms|text|reach|hotline)\b"
    r"|电话|手机|致电|拨打|来电|联系|热线|传真|座机|短信|号码|微信",
    re.IGNORECASE,
)
_YEARS = re.compile(r"(?:1\d|20)\d\d\s?-\s?(?:1\d|20)\d\d(?!\d)")
_DATE = re.compile(r"(?:19|20)\d\d[-. ](?:0?[1-9]|1[0-2])[-. ](?:0?[1-9]|[12]\d|3[01])(?!\d)")
_NOT_A_PHONE = re.compile(
    r"(?:order|invoice|tracking|serial|ticket|isbn|issn|part|model|account|id|no|sku|ref|version|release"
    r"|版本|订单|单号|编号|发票|快递|运单)(?:\s?(?:number|no\.?|号|码))?\s*(?:is|was|[:：#是为])?\s*$",
    re.IGNORECASE,
)


def find_phone_numbers(text: str, regions: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield telephone numbers: international ones, and local ones of the regions.

    A bare run of digits counts where a word before it says so, or where it is a Chinese mobile
    number. What a word before it calls an order, an ISBN and the like does not count.
    """
    for match in _PHONE.finditer(text):
        start, end = match.span()
        written = match[0]
        # An opening bracket that the number does not close is the sentence's.
        if written.startswith("(") and ")" not in written:
            start, written = start + 1, written[1:]
        if _is_phone_number(written, text, start, regions):
            yield start, end


def _is_phone_number(written: str, text: str, start: int, regions: tuple[str, ...]) -> bool:
    number = _EXTENSION.sub("", written)
    digits = re.sub(r"\D", "", number)
    if any(form.match(number) for form in (_DATE, _YEARS, _IPV4)) or " - " in number:
        return False
    if words_before(text, start, _NOT_A_PHONE) or in_a_sum(text, start, start + len(written)):
        return False
    if _CHINA_MOBILE.fullmatch(number):
        return True
    if number.startswith(("+", "(+")):
        return 8 <= len(digits) <= 15
    if number.startswith("00") and len(digits) >= 10 and _is_valid("+" + digits[2:], None):
        return True
    named = words_before(text, start, _PHONE_WORD)
    if _NORTH_AMERICA.fullmatch(number):
        return "US" in regions or "CA" in regions or named
    if number == digits and not named:
        return False
    if any(_is_valid(number, region) for region in regions):
        return True
    return named and 7 <= len(digits) <= 13 and _looks_dialled(number, digits)


def _looks_dialled(number: str, digits: str) -> bool:
    """Return whether a number behind "call" or "phone" is not a price, a year or a list."""
    groups = re.split(r"[\s().-]+", number.strip("()"))
    return len(digits) >= 10 if len(groups) == 1 else len(groups) <= 5


def _is_valid(number: str, region: str | None) -> bool:
    try:
        import phonenumbers
    except ImportError:
        raise ConfigError(
            "Telephone numbers are recognized by the package phonenumbers: pip install "
            "'plumbline-rlhf[privacy]', or leave phone out of personal_data.kinds."
        ) from None
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False
