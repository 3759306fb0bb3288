"""Masking personal data in conversations, and bringing it back.

The same value has the same number within a row, so that a text still says who is who.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plumbline.data.encryption import DataKey, decrypt_text, encrypt_text
from plumbline.data.records import CONVERSATION_COLUMNS, Row
from sft.personal_data.config import PersonalDataConfig
from sft.personal_data.names import NameList
from sft.personal_data.recognizer import Recognizer, Span, plain
from sft.personal_data.table import RECOGNIZERS
from sft.wrong_answers import with_wrong_answers, wrong_answers_of

COLUMN = "personal_data"
"""The column with what was masked, encrypted; only where it can be brought back."""
NAME = "name"
_MASK = re.compile(r"\[[A-Z][A-Z0-9_]*_\d+\]")
#: What a row may hold as conversations, beside single texts.
_CONVERSATIONS = frozenset(c for columns in CONVERSATION_COLUMNS.values() for c in columns)
#: Parts of a message that hold words: each is masked wherever it stands.
_SPOKEN = ("content", "reasoning_content", "name", "tool_calls")
_BOUND = ("role", "content", "reasoning_content")


@dataclass
class Masker:
    """Finds and masks personal data; made once for many rows."""

    recognizers: Sequence[Recognizer]
    regions: tuple[str, ...]
    names: NameList | None = None
    key: DataKey | None = None
    """The key under which masked values are kept; None: they are not kept."""
    counts: Counter[str] = field(default_factory=Counter)
    """Masked places by kind, over all rows so far."""

    @classmethod
    def of(cls, config: PersonalDataConfig, key: DataKey | None = None) -> Masker:
        """Return what the settings ask for; ``key`` counts only where masking is reversible."""
        names = NameList.read(config.names) if config.names is not None else None
        recognizers = [RECOGNIZERS[kind] for kind in config.kinds]
        return cls(recognizers, config.regions, names, key if config.reversible else None)

    def find(self, text: str) -> list[Span]:
        """Return where a text holds personal data, in order, none overlapping another."""
        read = plain(text)
        places = [
            (rank, start, end, recognizer.name)
            for rank, recognizer in enumerate(self.recognizers)
            for start, end in recognizer.find(read, self.regions)
        ]
        if self.names is not None:
            places += [(len(self.recognizers), *place, NAME) for place in self.names.find(text)]
        taken: list[Span] = []
        for _, start, end, kind in sorted(places):
            if all(end <= other.start or start >= other.end for other in taken):
                taken.append(Span(start, end, kind))
        return sorted(taken)

    def mask_row(self, row: Row) -> tuple[Row, Counter[str]]:
        """Return a row with its conversations masked, and the number of masked places by kind.

        A row in which nothing is found is returned as it is.
        """
        table = _Masks(_texts_of(row))
        masked: Row = dict(row)
        for column in _CONVERSATIONS & row.keys():
            masked[column] = [self._mask_message(message, table) for message in row[column]]
        masked = with_wrong_answers(masked, lambda text: self._mask_text(text, table))
        if not table.originals:
            return row, Counter()
        if self.key is not None:
            values = json.dumps(table.originals, ensure_ascii=False, sort_keys=True)
            masked[COLUMN] = encrypt_text(values, self.key, _context(masked))
        self.counts += table.counts
        return masked, table.counts

    def _mask_message(self, message: Mapping[str, Any], table: _Masks) -> dict[str, Any]:
        return {
            part: self._mask_value(value, table) if part in _SPOKEN else value
            for part, value in message.items()
        }

    def _mask_value(self, value: Any, table: _Masks) -> Any:
        """Mask a text, or the texts in a tool's call, at any depth."""
        if isinstance(value, str):
            return self._mask_text(value, table)
        if isinstance(value, Mapping):
            return {key: self._mask_value(held, table) for key, held in value.items()}
        if isinstance(value, list):
            return [self._mask_value(held, table) for held in value]
        return value

    def _mask_text(self, text: str, table: _Masks) -> str:
        parts, at = [], 0
        for start, end, kind in self.find(text):
            parts += [text[at:start], table.mask(text[start:end], kind)]
            at = end
        return "".join([*parts, text[at:]]) if at else text


class _Masks:
    """The masks of one row: which value has which."""

    def __init__(self, texts: Sequence[str]) -> None:
        # A mask that the text has already, from an earlier masking say, is not given again.
        self._taken = {mask for text in texts for mask in _MASK.findall(text)}
        self._masks: dict[tuple[str, str], str] = {}
        self.originals: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    def mask(self, value: str, kind: str) -> str:
        self.counts[kind] += 1
        known = self._masks.get((kind, value))
        if known is not None:
            return known
        number = 1
        while (mask := f"[{kind.upper()}_{number}]") in self._taken:
            number += 1
        self._taken.add(mask)
        self._masks[kind, value] = mask
        self.originals[mask] = value
        return mask


def unmask_row(row: Row, key: DataKey) -> Row:
    """Return a row with what was masked in it; one without anything masked as it is.

    Raises `DataError` for a wrong key, and where text and values do not belong together.
    """
    sealed = row.get(COLUMN)
    if not sealed:
        return {name: value for name, value in row.items() if name != COLUMN}
    originals: Mapping[str, str] = json.loads(decrypt_text(sealed, key, _context(row)))
    pattern = re.compile("|".join(map(re.escape, originals)))

    def restored(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda match: originals[match[0]], value)
        if isinstance(value, Mapping):
            return {name: restored(held) for name, held in value.items()}
        if isinstance(value, list):
            return [restored(held) for held in value]
        return value

    whole = {name: value for name, value in row.items() if name != COLUMN}
    whole |= {name: restored(whole[name]) for name in _CONVERSATIONS & whole.keys()}
    return with_wrong_answers(whole, restored)


def _texts_of(row: Row) -> list[str]:
    """Return all text of a row's conversations and wrong answers."""
    return [
        json.dumps(row[column], ensure_ascii=False, default=str)
        for column in sorted(_CONVERSATIONS & row.keys())
    ] + wrong_answers_of(row)


def _context(row: Row) -> str:
    """Return what the encrypted values are bound to: the masked words themselves.

    Without calls of tools, which a table writes another way than a row in memory.
    """
    spoken = {
        column: [
            {part: message[part] for part in _BOUND if message.get(part)} for message in row[column]
        ]
        for column in sorted(_CONVERSATIONS & row.keys())
    }
    return json.dumps(spoken, ensure_ascii=False, sort_keys=True)
