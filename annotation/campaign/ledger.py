"""The journal of answers: every version of every answer once, in the order of reading.

Lines are added and never changed. A batch is on the disk before `append` returns. What a kill
leaves of a line is cut off when the journal is next opened for writing, and read from the server
again. The journal's length is kept in a file beside it, so that a journal that lost its end (a
restored disk, a copy that stopped) is noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from annotation.argilla.api import Answer
from annotation.private_files import flush_folder, write_private
from plumbline.errors import DataError

_Key = tuple[str, str, str]


class Ledger:
    """The journal of one campaign."""

    def __init__(self, path: Path, *, writing: bool = False) -> None:
        """Open a journal. One process at a time may open it for writing."""
        self.path, self._writing = path, writing
        self.lost_bytes = _missing_bytes(path)
        """How much of the end is missing that was written once."""
        self.repaired_bytes = _cut_torn_line(path) if writing else 0
        """How much of an unfinished last line was cut off."""
        self._versions: dict[str, list[Answer]] = {}
        self._seen: set[_Key] = set()
        self._lines = 0
        for answer in _read(path):
            self._note(answer)

    def __len__(self) -> int:
        """Return the number of versions."""
        return self._lines

    def append(self, answers: Iterable[Answer]) -> tuple[int, int]:
        """Add the versions that are new; return how many are first and how many later versions.

        A draft is not an answer yet. It is noted only where it takes an answer back.
        """
        if not self._writing:
            raise ValueError("this journal was opened for reading")
        new: list[Answer] = []
        first = 0
        for answer in answers:
            is_known = answer.id in self._versions
            if _key(answer) in self._seen or (answer.status == "draft" and not is_known):
                continue
            first += not is_known
            self._note(answer)
            new.append(answer)
        if new:
            self._write(new)
        return first, len(new) - first

    def accept_length(self) -> None:
        """Keep the present length as the right one, after what was lost was read again."""
        if self.path.exists():
            _write_length(self.path, self.path.stat().st_size)
            self.lost_bytes = 0

    def versions(self) -> list[list[Answer]]:
        """Return every answer's versions, the earliest first."""
        return [
            sorted(versions, key=lambda answer: answer.changed_at)
            for versions in self._versions.values()
        ]

    def current(self) -> list[Answer]:
        """Return each person's latest answer to each record, taken back or not.

        Argilla has one answer per person and record. Where there are two here, the server was
        restored from a backup without the first, and the person answered again.
        """
        last: dict[tuple[str, ...], Answer] = {}
        for *_, answer in self.versions():
            key = (answer.id,) if answer.item is None else (answer.user_id, answer.item)
            if key not in last or last[key].changed_at < answer.changed_at:
                last[key] = answer
        return list(last.values())

    def _note(self, answer: Answer) -> None:
        self._versions.setdefault(answer.id, []).append(answer)
        self._seen.add(_key(answer))
        self._lines += 1

    def _write(self, answers: Sequence[Answer]) -> None:
        lines = "".join(json.dumps(asdict(a), ensure_ascii=False) + "\n" for a in answers)
        created = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as stream:
            stream.write(lines.encode())
            stream.flush()
            os.fsync(stream.fileno())
            size = stream.tell()
        if created:
            flush_folder(self.path.parent)
        if not self.lost_bytes:  # else the old length stands until everything was read again
            _write_length(self.path, size)


def _key(answer: Answer) -> _Key:
    return answer.id, answer.changed_at, answer.status


def _length_file(path: Path) -> Path:
    return path.with_name(f"{path.stem}-length.json")


def _write_length(path: Path, size: int) -> None:
    write_private(_length_file(path), json.dumps({"bytes": size}) + "\n")


def _missing_bytes(path: Path) -> int:
    """Return how many bytes the journal is shorter than it once was.

    A journal of an earlier version has no file with its length; then nothing is known to be lost.
    """
    try:
        expected = int(json.loads(_length_file(path).read_text("utf-8"))["bytes"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
    size = path.stat().st_size if path.exists() else 0
    return max(0, expected - size)


def _read(path: Path) -> Iterator[Answer]:
    if not path.exists():
        return
    with path.open("rb") as stream:  # a torn line may end in the middle of a character
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return  # it is being written, or its writer was killed
            try:
                yield Answer(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"{path}, line {number} is damaged: {error}. No kill does that. Move the file, "
                    f"{_length_file(path).name} and pulled.json away and pull again: you get back "
                    "what is on the server. Earlier versions of answers are only in the file."
                ) from None


def _cut_torn_line(path: Path) -> int:
    """Cut off what follows the last line's end; return how many bytes it was."""
    if not path.exists():
        return 0
    with path.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            stream.seek(start)
            newline = stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            stream.truncate(end)
            stream.flush()
            os.fsync(stream.fileno())
        return size - end
