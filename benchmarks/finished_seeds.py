"""Results of a benchmark's finished seeds, kept in a file: a run that is cut off loses one seed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from plumbline.runs.code_version import digest
from plumbline.runs.progress import duration


class FinishedSeeds:
    """A JSON line for each finished seed; lines with other settings are left alone.

    ``settings`` are all that determines a result but the seed and the code. ``code`` is the module
    of ours that the benchmark measures.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any], code: str) -> None:
        self._file, self._code = file, digest(code)
        self._settings = json.loads(json.dumps(settings, default=str))
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        kept = []
        for line in lines:
            with suppress(ValueError):  # one may be cut off
                kept.append(json.loads(line))
        self._kept = {line["seed"]: line for line in kept if line["settings"] == self._settings}

    def each(self, first: int, count: int, make: Callable[[int], dict[str, Any]]) -> list[Any]:
        """Return the result of each seed, from the file or of ``make``.

        Each is said when it is there, with the time that is left.
        """
        seeds = range(first, first + count)
        self._tell_what_is_kept([seed for seed in seeds if seed in self._kept])
        results, waiting = [], [seed for seed in seeds if seed not in self._kept]
        seconds: list[float] = []
        for seed in seeds:
            if seed in self._kept:
                results.append(self._kept[seed]["result"])
                continue
            started = time.monotonic()
            results.append(make(seed))
            seconds.append(time.monotonic() - started)
            self._write(seed, seconds[-1], results[-1])
            left = sum(seconds) / len(seconds) * (len(waiting) - len(seconds))
            say(
                f"seed {seed}: {_short(results[-1])}; {duration(seconds[-1])}"
                + (f", about {duration(left)} left" if left else "")
            )
        return results

    def _write(self, seed: int, seconds: float, result: dict[str, Any]) -> None:
        line = {
            "settings": self._settings,
            "code": self._code,
            "seed": seed,
            "seconds": round(seconds, 1),
            "result": result,
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        old = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write("\n" * bool(old and not old.endswith("\n")) + json.dumps(line) + "\n")

    def _tell_what_is_kept(self, seeds: list[int]) -> None:
        if not seeds:
            return
        other = [seed for seed in seeds if self._kept[seed]["code"] != self._code]
        say(f"seeds {seeds} are done already, in {self._file}")
        if other:
            say(f"seeds {other} are by another version of the code; delete the file to repeat them")


def say(text: str) -> None:
    """Print a line of progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def _short(result: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_rounded(value)}" for name, value in result.items())


def _rounded(value: Any) -> str:
    last = value[-1] if isinstance(value, list) else value  # of a curve, its end
    return f"{last:.3g}" if isinstance(last, float) else str(last)
