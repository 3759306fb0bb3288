"""Answers of an endpoint, kept on the disk as they come: in a stage's own file, or by content."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock

from plumbline.lm.endpoint.client import Reply
from plumbline.lm.endpoint.config import EndpointConfig

K = TypeVar("K", bound=Hashable)


class Journal(Generic[K]):
    """Answers, appended to a file as they come; safe to use from threads and processes."""

    def __init__(self, path: Path, key_of: Callable[[Reply], K]) -> None:
        """``key_of`` returns what an answer in the file is known by."""
        self._path, self._key_of = path, key_of
        self._lock = threading.Lock()
        self._others = FileLock(f"{path}.lock", mode=0o600)
        self.answers: dict[K, Reply] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._read()

    def __contains__(self, key: K) -> bool:
        return key in self.answers

    def __len__(self) -> int:
        return len(self.answers)

    def add(self, key: K, answer: Reply) -> None:
        """Keep an answer; it is on the disk when this returns."""
        line = json.dumps(answer, ensure_ascii=False).encode() + b"\n"
        with self._lock, self._others:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            self.answers[key] = answer

    def _read(self) -> None:
        """Read the complete lines; cut off half a line, which a kill may leave."""
        with self._others:
            data = self._path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if len(whole) < len(data):
                os.truncate(self._path, len(whole))
        for line in whole.splitlines():  # of bytes: a text may hold other line ends
            answer = json.loads(line)
            self.answers[self._key_of(answer)] = answer


def by_content(folder: Path, config: EndpointConfig) -> Journal[str]:
    """Return the answers of a model, each known by what was asked (`content_key`).

    Who asks the same again finds the answer, also after a kill, or with other settings
    of what is done with the answers.
    """
    name = hashlib.sha256(f"{config.base_url}\0{config.model}".encode()).hexdigest()[:16]
    return Journal(folder / f"answers-{name}.jsonl", lambda answer: str(answer["asked"]))


def content_key(body: Mapping[str, Any]) -> str:
    """Return a digest of a request's body."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
