"""What a format of data is: how it is recognised, which columns it reads, what they become."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from plumbline.data.messages import is_missing, structure_from
from plumbline.data.part_values import Parts, has_something

Record = Mapping[str, Any]
Names = Mapping[str, tuple[str, ...]]

#: Parts that belong to the prompt: every use that reads a prompt reads them, too.
PROMPT_PARTS = ("messages", "prompt", "system", "history", "context", "input", "options")
#: Columns of these parts change what a row means, so that a row is left out where one of them
#: holds something and the format does not read it.
MEANINGFUL: Names = {
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "media": ("images", "image", "videos", "video", "audios", "audio"),
    "reasoning": ("reasoning_content", "reasoning", "thinking"),
    "weight": ("weight",),
    "options": ("options", "choices"),
    "context": ("context", "passage"),
}
#: What formats with a question and a response read beside these two.
AROUND: Names = {
    name: MEANINGFUL[name]
    for name in ("system", "history", "tools", "media", "reasoning", "weight", "options")
}
#: What demonstrations read beside the right response.
WRONG: Names = {"wrong_answers": ("wrong_answers", "incorrect_answers")}


class Derived(NamedTuple):
    """A part that a format derives, and the parts that it is made of."""

    part: str
    of: tuple[str, ...]


def derived(parts: Iterable[str], *, of: tuple[str, ...]) -> tuple[Derived, ...]:
    """Return parts that are made of the same others."""
    return tuple(Derived(part, of) for part in parts)


@dataclass(frozen=True)
class Format:
    """A format of data, from its columns to the parts of a row.

    A file is of the first format in the table that most of its first rows are of; each row is
    then read by that one.
    """

    name: str
    about: str
    """Where it is met, in a line."""
    columns: Names
    """The columns of each part: of several names, the first that the file has."""
    marks: tuple[str, ...]
    """Parts without which a row is not of this format."""
    example: Record
    """A row of this format."""
    derives: tuple[Derived, ...] = ()
    """Parts that ``read`` makes of others."""
    read: Callable[[dict[str, Any]], Parts | Sequence[Parts]] = lambda parts: parts
    """From the parts that are in a row to those of an example, or of several examples."""
    holds: Callable[[Record], bool] = lambda record: True
    """What else must be true of a row, where several formats have these columns."""

    def find_columns(self, names: Collection[str]) -> dict[str, str]:
        """Return the column of each part in a file with these columns."""
        columns: dict[str, str] = {}
        for part, candidates in self.columns.items():
            column = next((name for name in candidates if name in names), None)
            if column is not None and column not in columns.values():
                columns[part] = column
        return columns

    def gives(self, names: Collection[str]) -> frozenset[str]:
        """Return the parts that a file with these columns has in this format."""
        present = frozenset(self.find_columns(names))
        return present | {part for part, of in self.derives if present.issuperset(of)}

    def is_of(self, record: Record) -> bool:
        """Return whether a row is of this format: it has what marks it, in the right shape."""
        columns = self.find_columns(record)
        return all(
            mark in columns and not is_missing(record[columns[mark]]) for mark in self.marks
        ) and self.holds(record)


def parts_in(record: Record, columns: Mapping[str, str], needed: Collection[str]) -> dict[str, Any]:
    """Return the parts of a row that hold something.

    Those that are needed are there even if they are empty: an empty question is reported as one.
    """
    parts = {}
    for part, column in columns.items():
        value = record.get(column)
        if not is_missing(value) and (part in needed or has_something(value) or value is False):
            parts[part] = _several(value) if (part, column) == ("response", "answers") else value
    return parts


def _several(value: Any) -> Any:
    """Return the texts that a cell of a table lists, under a name that says it holds several."""
    texts = structure_from(value)
    is_list = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    return texts if is_list else value
