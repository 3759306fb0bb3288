"""The table of kinds of personal data; a user's own function is one more row.

Such a function gets a text and the regions, and yields start and end of each place. The kind in the
mask is the function's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plumbline.tables import Table
from sft.personal_data.contacts import find_emails, find_ip_addresses, find_phone_numbers
from sft.personal_data.numbers import find_cards, find_chinese_ids, find_ibans, find_us_ssns
from sft.personal_data.recognizer import Recognizer


def _own(path: str, function: Callable[..., Any]) -> Recognizer:
    name = path.rpartition(".")[2]
    return Recognizer(name, function, "your own", name, reads_regions=True)


#: Where two places overlap, the kind that stands first here counts.
RECOGNIZERS: Table[Recognizer] = Table(
    "kind of personal data",
    [
        Recognizer(
            "email",
            find_emails,
            "e-mail addresses, also as name [at] host [dot] org",
            "e-mail address",
        ),
        Recognizer("iban", find_ibans, "IBANs with right length and check digits", "IBAN"),
        Recognizer(
            "cn_id",
            find_chinese_ids,
            "Chinese identity numbers, check digit and date",
            "Chinese identity number",
        ),
        Recognizer(
            "card", find_cards, "payment cards: issuer, length and Luhn digit", "card number"
        ),
        Recognizer(
            "us_ssn", find_us_ssns, "US social security numbers", "US social security number"
        ),
        Recognizer(
            "ip", find_ip_addresses, "IPv4 and IPv6 addresses that can be somebody's", "IP address"
        ),
        Recognizer(
            "phone",
            find_phone_numbers,
            "telephone numbers, Chinese mobiles among them",
            "telephone number",
            package="phonenumbers",
            reads_regions=True,
        ),
    ],
    from_function=_own,
)
