"""How long a run will take, from an earlier one of the same recipe under the same home folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from plumbline.errors import PlumblineError
from plumbline.runs.machine import machine
from plumbline.runs.progress import duration
from plumbline.runs.run import RunRecord, all_runs

#: Stages that take less are not named one by one.
_WORTH_NAMING = 5.0
#: What makes two machines the same for a forecast.
_MACHINE = ("system", "architecture", "cores", "device")


@dataclass(frozen=True)
class Forecast:
    """Seconds of each stage of an earlier run, by the stage's name."""

    run: str
    seconds: Mapping[str, float]
    differing: int
    """Settings that differ between the two runs."""

    def left(self, finished: Iterable[str]) -> float:
        """Return the seconds of the stages that are not made yet.

        Stages of different seeds count as one another, since each takes as long.
        """
        done = Counter(map(_without_seed, finished))
        left = 0.0
        for name, seconds in self.seconds.items():
            if done[_without_seed(name)]:
                done[_without_seed(name)] -= 1
            else:
                left += seconds
        return left

    def sentences(self) -> list[str]:
        """Return what is said of it before the run."""
        long = {name: s for name, s in self.seconds.items() if s >= _WORTH_NAMING}
        stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in long.items())
        settings = (
            "the same settings"
            if self.differing == 0
            else f"{self.differing} other setting{'s' * (self.differing > 1)}"
        )
        about = f"About {duration(sum(self.seconds.values()))}, as {self.run} took with {settings}"
        return [f"{about}: {stages}." if stages else f"{about}.",
                "Stages that are made already take no time."]  # fmt: skip


def forecast(home: Path, recipe: str, settings: Mapping[str, str]) -> Forecast | None:
    """Return the forecast by the finished run whose settings differ least; None without one.

    ``settings`` are those of this run by key. What it took itself before, under its name, counts,
    too. A run of another machine says nothing of this one.
    """
    here = _kind_of(machine())
    best: Forecast | None = None
    for record in all_runs(home)[0]:  # the newest first
        if record.state["recipe"] != recipe:
            continue
        seconds, earlier = _taken(record, here)
        if not seconds:
            continue
        keys = settings.keys() | earlier.keys()
        differing = sum(settings.get(key) != earlier.get(key) for key in keys)
        if best is None or differing < best.differing:
            best = Forecast(record.folder.name, seconds, differing)
    return best


def _without_seed(name: str) -> str:
    return re.sub(r"seed-\d+", "seed", name)


def _taken(
    record: RunRecord, here: tuple[object, ...]
) -> tuple[dict[str, float], Mapping[str, str]]:
    """Return the seconds of a run's stages, and its settings, as it was last finished.

    No seconds where it never was, or where another machine made one of the stages.
    """
    try:
        artifacts, settings = record.last_finished or ({}, {})
        if any(_kind_of(artifact.manifest.machine) != here for artifact in artifacts.values()):
            return {}, {}
        return {name: artifact.manifest.seconds for name, artifact in artifacts.items()}, settings
    except PlumblineError:  # an artefact was deleted or damaged, which is said where it is needed
        return {}, {}


def _kind_of(values: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(values.get(key) for key in _MACHINE)
