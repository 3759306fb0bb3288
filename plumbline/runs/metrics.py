"""`metrics.jsonl`: one JSON object per line, each with its step; every stage writes it.

It holds no times, so a run that was killed and resumed ends with the same bytes as one that was
not. Times are in the manifest.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
Listener = Callable[[int, Mapping[str, Any]], None]
"""Called with each line as it is written: its step, and its values."""


class MetricsLog:
    """Appends to a stage's ``metrics.jsonl``."""

    def __init__(self, path: Path, listeners: Sequence[Listener] = ()) -> None:
        self.path, self._listeners = path, listeners
        path.touch()

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line. A value that is not finite becomes null, so that it stays visible."""
        numbers = {key: _json_number(value) for key, value in values.items()}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **numbers}, ensure_ascii=False) + "\n")
        for listener in self._listeners:
            listener(step, numbers)

    def position(self) -> int:
        """Return how many bytes are written, durably; a checkpoint keeps this."""
        with self.path.open("rb+") as stream:
            os.fsync(stream.fileno())
            return stream.seek(0, os.SEEK_END)

    def rewind(self, position: int) -> None:
        """Delete what was written after the checkpoint from which training resumes."""
        with self.path.open("rb+") as stream:
            stream.truncate(position)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read a metrics file; a last line that was cut off by a kill is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _json_number(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
