"""How long a run will take, from an earlier one of the same recipe under the same home folder."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plumbline.errors import PlumblineError
from plumbline.runs.machine import machine
from plumbline.runs.progress import duration
from plumbline.runs.run import RunRecord, all_runs

#: Stages that take less are not named one by one.
_WORTH_NAMING = 5.0
#: Settings that say how long a training is. Its stages have the name of the part of the settings.
_LENGTHS = ("epochs", "max_steps", "iterations", "rounds")
_SEED = re.compile(r"seed-(\d+)")
#: What makes two machines the same for a forecast.
_MACHINE = ("system", "architecture", "cores", "device")


@dataclass(frozen=True)
class Forecast:
    """Seconds of each stage of an earlier run, by the stage's name."""

    run: str
    seconds: Mapping[str, float]
    differing: int
    """Settings that differ between the two runs."""
    scaled: Mapping[str, float] = field(default_factory=dict)
    """Parts whose trainings are longer or shorter here, with the factor that is in ``seconds``."""
    unscaled: tuple[str, ...] = ()
    """Parts whose trainings have another length here, by a factor that is not known."""

    def left(self, finished: Iterable[str]) -> float:
        """Return the seconds of the stages that are not made yet.

        Stages of different seeds count as one another, since each takes as long. 0 where a stage
        is none of the earlier run's: what follows it is not known then.
        """
        done = Counter(map(_without_seed, finished))
        if done.keys() - set(map(_without_seed, self.seconds)):
            return 0.0
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
        by = "by what" if self.scaled else "as"
        about = (
            f"About {duration(sum(self.seconds.values()))}, {by} {self.run} took with {settings}"
        )
        sentences = [f"{about}: {stages}." if stages else f"{about}."]
        if self.scaled:
            factors = ", ".join(f"{part} {factor:.3g}" for part, factor in self.scaled.items())
            sentences.append(f"It is scaled to the epochs and steps here: times {factors}.")
        if self.unscaled:
            sentences.append(
                f"{', '.join(self.unscaled)}: epochs there and steps here, or the other way round, "
                "so the time may be another one."
            )
        return [*sentences, "Stages that are made already take no time."]


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
            seconds = _with_seeds(seconds, _seeds(earlier), _seeds(settings))
            parts = set(map(_part_of, seconds))
            factors = {p: f for p, f in _factors(settings, earlier).items() if p in parts}
            scaled = {part: factor for part, factor in factors.items() if factor not in (1.0, None)}
            best = Forecast(
                record.folder.name,
                {name: s * (scaled.get(_part_of(name)) or 1.0) for name, s in seconds.items()},
                differing,
                {part: factor for part, factor in scaled.items() if factor is not None},
                tuple(part for part, factor in factors.items() if factor is None),
            )
    return best


def _factors(settings: Mapping[str, str], earlier: Mapping[str, str]) -> dict[str, float | None]:
    """Return how many times as long each part trains as it did; None where that is not known."""
    factors: dict[str, float | None] = {}
    for key in sorted(settings.keys() & earlier.keys()):
        part, name = key.partition(".")[0], key.rpartition(".")[2]
        if name not in _LENGTHS or settings[key] == earlier[key]:
            continue
        here, there = json.loads(settings[key]), json.loads(earlier[key])
        factor = factors.get(part, 1.0)
        known = factor is not None and _is_length(here) and _is_length(there)
        factors[part] = factor * here / there if known else None
    return factors


def _seeds(settings: Mapping[str, str]) -> Sequence[int]:
    """Return the training seeds of a run; none where it has no such setting."""
    seeds = json.loads(settings.get("seeds", "[]"))
    return seeds if isinstance(seeds, list) else []


def _with_seeds(
    seconds: Mapping[str, float], there: Sequence[int], here: Sequence[int]
) -> dict[str, float]:
    """Return the seconds for as many stages of each method as there are seeds here."""
    if not there or not here:
        return dict(seconds)
    taken: dict[str, float] = {}
    for name, value in seconds.items():
        match = _SEED.search(name)
        if match is None or int(match[1]) not in there:
            taken[name] = value
            continue
        for seed in here[there.index(int(match[1])) :: len(there)]:
            taken[f"{name[: match.start()]}seed-{seed}{name[match.end() :]}"] = value
    return taken


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _part_of(stage: str) -> str:
    """Return the part of the settings that a stage has its name of: ``ppo/seed-0`` of ``ppo``."""
    return stage.partition("/")[0]


def _without_seed(name: str) -> str:
    return _SEED.sub("seed", name)


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
