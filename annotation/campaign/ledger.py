"""The journal of answers: every version of every answer, once, in the order in which it was read.

Lines are added and never changed. A batch is on the disk before `append` returns; what a kill
leaves of a line is cut off when the journal is next opened for writing, and read from the server
once more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from annotation.campaign.argilla import Answer
from annotation.private_files import flush_folder
from plumbline.errors import DataError

_Key = tuple[str, str, str]


class Ledger:
    """The journal of one campaign."""

    def __init__(self, path: Path, *, writing: bool = False) -> None:
        """Open a journal. One process at a time may open it for writing."""
        self.path, self._writing = path, writing
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
        """Add the versions that are not there yet; return how many are first and how many later.

        Drafts are nobody's last word: one is noted only where it takes an answer back.
        """
        if not self._writing:
            raise ValueError("this journal was opened for reading")
        new: list[Answer] = []
        first = 0
        for answer in answers:
            known = answer.id in self._versions
            if _key(answer) in self._seen or (answer.status == "draft" and not known):
                continue
            first += not known
            self._note(answer)
            new.append(answer)
        if new:
            self._write(new)
        return first, len(new) - first

    def versions(self) -> list[list[Answer]]:
        """Return every answer's versions, the earliest first."""
        return [
            sorted(versions, key=lambda answer: answer.changed_at)
            for versions in self._versions.values()
        ]

    def current(self) -> list[Answer]:
        """Return what each person last said about each record, taken back or not.

        Argilla knows one answer a person and record. Where there are two, the server was restored
        from a backup that had not the first, and it was given again.
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
        if created:
            flush_folder(self.path.parent)


def _key(answer: Answer) -> _Key:
    return answer.id, answer.changed_at, answer.status


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
                    f"{path}, line {number} is damaged: {error}. No kill does that. Move the file "
                    "and pulled.json away and pull again: what is on the server comes back, but "
                    "earlier versions of answers are in the file alone."
                ) from None


def _cut_torn_line(path: Path) -> int:
    """Cut off what stands behind the last line's end; return how many bytes it was."""
    if not path.exists():
        return 0
    with path.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 65536)
            stream.seek(start)
            found = stream.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            stream.truncate(end)
            stream.flush()
            os.fsync(stream.fileno())
        return size - end
