"""Scores that are kept: the same model is asked about the same text once."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from plumbline.data.records import Message
from plumbline.errors import DataError
from plumbline.hooks import Scorer, problem_with

_ENTRIES = 200_000


class CachedScorer:
    """A scorer whose scores are kept by the hash of what they depend on.

    The key is the SHA-256 of the scorer's content, the prompt and the response, so a changed model
    never answers with the scores of the old one. Kept are the last ``entries`` scores in memory,
    and with a ``file`` (SQLite) all of them beyond the end of the process.
    """

    def __init__(
        self, scorer: Scorer, content: str, *, entries: int = _ENTRIES, file: Path | None = None
    ) -> None:
        self.name, self.content = scorer.name, content
        self.hits = self.misses = 0
        self._scorer, self._entries = scorer, entries
        self._memory: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()
        self._file = None if file is None else _ScoreFile(file)

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        return problem_with(self._scorer, prompt)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return one number per response; what is new is scored at once, each text once."""
        keys = [key_of(self.content, *pair) for pair in zip(prompts, responses, strict=True)]
        known = self._known(keys)
        new: dict[bytes, int] = {}
        for number, key in enumerate(keys):
            if key not in known:
                new.setdefault(key, number)
        if new:
            rows = list(new.values())
            scores = self._scorer.score([prompts[n] for n in rows], [responses[n] for n in rows])
            fresh = dict(zip(new, scores, strict=True))
            self._keep(fresh)
            known |= fresh
        with self._lock:
            self.misses += len(new)
            self.hits += len(keys) - len(new)
        return [known[key] for key in keys]

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        with self._lock:
            known = {key: self._memory[key] for key in keys if key in self._memory}
            for key in known:
                self._memory.move_to_end(key)
            if self._file is not None:
                known |= self._file.read([key for key in keys if key not in known])
        return known

    def _keep(self, scores: Mapping[bytes, float]) -> None:
        with self._lock:
            self._memory.update(scores)
            while len(self._memory) > self._entries:
                self._memory.popitem(last=False)
            if self._file is not None:
                self._file.write(scores)


def key_of(content: str, prompt: Sequence[Message], response: str) -> bytes:
    """Return the SHA-256 of a scorer's content, a prompt and a response."""
    text = json.dumps([content, prompt, response], ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode()).digest()


class _ScoreFile:
    """Scores in a SQLite file; a process that is killed loses at most its last write."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._table = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            self._table.execute("PRAGMA journal_mode=WAL")
            self._table.execute(
                "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, score REAL NOT NULL) "
                "WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{file} cannot be used as a file of scores: {error}. Give another file, or remove "
                "this one: its scores are computed again."
            ) from None

    def read(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        known: dict[bytes, float] = {}
        for start in range(0, len(keys), 500):
            part = list(keys[start : start + 500])
            marks = ",".join("?" * len(part))
            rows = self._table.execute(
                f"SELECT key, score FROM scores WHERE key IN ({marks})", part
            )
            known |= {bytes(key): float(score) for key, score in rows}
        return known

    def write(self, scores: Mapping[bytes, float]) -> None:
        finite = [(key, score) for key, score in scores.items() if score == score]  # no NaN
        self._table.execute("BEGIN")
        self._table.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", finite)
        self._table.execute("COMMIT")
