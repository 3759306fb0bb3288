"""Steps on the text of each turn: Unicode, line ends, control characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal, cast

from plumbline.data.records import Message, Row
from sft.cleaning.step import (
    Outcome,
    RowFunction,
    Step,
    StepConfig,
    StepContext,
    each,
    with_turns,
)

#: Characters that look like nothing and change what a tokenizer sees: byte-order marks inside a
#: text, marks of text direction, and the soft hyphen. Joiners stay: emoji and Persian need them.
_INVISIBLE = frozenset("\ufeff\u00ad\u2060\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e")


class UnicodeConfig(StepConfig):
    """How texts are made plain Unicode."""

    step: Literal["unicode"] = "unicode"
    repair: bool = True
    """Repair text that was decoded in a wrong encoding (``cafÃ©`` to ``café``), by ftfy. Full-width
    characters, curled quotes and ligatures stay as they are."""
    html_entities: bool = False
    """Replace HTML entities (``&amp;``) outside of markup. Texts about HTML lose by it."""
    remove_invisible: bool = True
    """Remove characters that are not seen: zero-width spaces, marks of direction, soft hyphens."""


def _unicode(config: UnicodeConfig, _: StepContext) -> RowFunction:
    """Return the step: NFC, plain line ends, no control characters, no outer white space."""
    changes: list[tuple[str, Callable[[str], str]]] = [
        ("line ends were made plain", plain_line_ends)
    ]
    if config.repair:
        changes.append(("text in a wrong encoding was repaired", repair_encoding))
    if config.html_entities:
        changes.append(("HTML entities were replaced", without_entities))
    changes += [
        ("characters were composed (NFC)", composed),
        ("control characters were removed", without_control_characters),
    ]
    if config.remove_invisible:
        changes.append(("invisible characters were removed", without_invisible))
    changes.append(("outer white space was removed", str.strip))
    return each(lambda row: _changed(row, changes))


def _changed(row: Row, changes: Sequence[tuple[str, Callable[[str], str]]]) -> Outcome:
    """Return a row with each change applied to each of its texts."""
    names: dict[str, None] = {}

    def change(message: Message) -> Message:
        new = dict(message)
        for key in ("content", "reasoning_content"):
            text = message.get(key)
            if isinstance(text, str):
                for name, function in changes:
                    after = function(text)
                    if after != text:
                        names[name] = None
                    text = after
                new[key] = text
        return cast("Message", new) if new != message else message

    return Outcome((with_turns(row, change),), changes=tuple(names))


UNICODE = Step(
    "unicode",
    "plain Unicode: wrong encodings repaired, NFC, plain line ends, no control characters, no "
    "outer white space",
    UnicodeConfig,
    _unicode,
)


def plain_line_ends(text: str) -> str:
    """Return a text whose lines end with a line feed alone."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def composed(text: str) -> str:
    """Return a text in Unicode NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def without_control_characters(text: str) -> str:
    """Return a text without control characters, but for line feeds and tabs."""
    if text.isprintable():
        return text
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def without_invisible(text: str) -> str:
    """Return a text without characters that nobody sees."""
    if text.isascii():
        return text
    return "".join(c for c in text if c not in _INVISIBLE)


def repair_encoding(text: str) -> str:
    """Return a text with mojibake repaired by ftfy.

    By default ftfy would also make full-width punctuation half-width, which is wrong in Chinese,
    straighten quotes and split ligatures; all of these stay.
    """
    return text if text.isascii() else _ftfy(text, encoding=True, entities=False)


def without_entities(text: str) -> str:
    """Return a text with HTML entities replaced, unless it holds markup."""
    return _ftfy(text, encoding=False, entities=True) if "&" in text else text


def _ftfy(text: str, *, encoding: bool, entities: bool) -> str:
    import ftfy

    settings = ftfy.TextFixerConfig(
        fix_encoding=encoding,
        unescape_html="auto" if entities else False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        remove_terminal_escapes=False,
        normalization=None,
    )
    return ftfy.fix_text(text, settings)
