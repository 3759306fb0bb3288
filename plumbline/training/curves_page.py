"""The page of a run's trainings: what is watched, as curves with their healthy ranges.

Plain SVG, drawn here: the page opens without a network and without scripts, and loads itself again
every few seconds while the run is in progress.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline import __version__, pages
from plumbline.runs.artifacts import Store
from plumbline.runs.metrics import METRICS, read_metrics
from plumbline.runs.run import RunRecord
from plumbline.runs.stage import SPEED
from plumbline.training.health import WATCHED_FIGURES, WatchedFigure

CODE_BESIDE = "../templates"
SECONDS_BETWEEN_LOADS = 5
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 360, 150, 52, 18

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One figure of one training."""

    title: str
    last: float
    low: float
    """The ends of the vertical axis."""
    high: float
    steps: tuple[int, int]
    path: str
    """What ``d`` of an SVG path is."""
    end: tuple[float, float]
    """Where the last point is in the plot."""
    band: tuple[float, float] | None
    """Top and height of the healthy range in the plot; None where it has no limits there."""
    problem: str | None
    """What is wrong with the last value; None where it is healthy."""


def training_page(record: RunRecord) -> str:
    """Return the page of all trainings of a run, finished ones and the one in progress."""
    trainings = [
        {"name": name, "curves": curves_of(points_of(metrics, speed))}
        for name, metrics, speed in _files_of(record)
    ]
    template = pages.templates("plumbline").get_template("training.html.jinja")
    return template.render(
        title=f"{record.folder.name}: training",
        version=__version__,
        trainings=[training for training in trainings if training["curves"]],
        reload=SECONDS_BETWEEN_LOADS if record.status == "running" else None,
        status=record.status,
        width=_WIDTH, height=_HEIGHT, left=_LEFT, bottom=_BOTTOM,
    )  # fmt: skip


def _files_of(record: RunRecord) -> list[tuple[str, Path, Path]]:
    """Return each stage's name with its files of metrics and of speed."""
    folders = {name: artifact.path for name, artifact in record.artifacts.items()}
    stage, making = record.state.get("stage"), record.state.get("making")
    if stage and making and stage not in folders:
        folders[str(stage)] = Store(record.store.root).partial(str(making)) / "out"
    trackers = record.folder / "trackers"
    return [
        (name, folder / METRICS, trackers / name.replace("/", "-") / SPEED)
        for name, folder in folders.items()
        if (folder / METRICS).exists()
    ]


def points_of(metrics: Path, speed: Path) -> dict[str, Points]:
    """Return steps and values of each watched figure; a step that was taken again counts once."""
    lines: dict[str, Sequence[Mapping[str, Any]]] = {
        "metrics.jsonl": read_metrics(metrics),
        "speed.jsonl": _read_speed(speed),
    }
    points: dict[str, Points] = {}
    for name, figure in WATCHED_FIGURES.items():
        by_step = {
            float(line["step"]): float(line[name])
            for line in lines[figure.written_to]
            if isinstance(line.get(name), int | float) and math.isfinite(line[name])
        }
        if by_step:
            points[name] = sorted(by_step.items())
    return points


def _read_speed(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    whole = [line for line in file.read_text(encoding="utf-8").splitlines(True) if line[-1] == "\n"]
    return [json.loads(line) for line in whole]


def curves_of(points: Mapping[str, Points]) -> list[Curve]:
    """Return a curve for each figure of a training that has points."""
    return [_curve(WATCHED_FIGURES[name], values) for name, values in points.items()]


def _curve(figure: WatchedFigure, points: Points) -> Curve:
    values = [value for _, value in points]
    low, high = min(values), max(values)
    if high - low < 1e-12 * max(abs(high), 1.0):
        low, high = low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
    first, last = points[0][0], points[-1][0]

    def y(value: float) -> float:
        return (high - value) / (high - low) * _HEIGHT

    def x(step: float) -> float:
        return _LEFT + (step - first) / max(last - first, 1) * _WIDTH

    path = "M" + " L".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
    band = None
    if figure.low is not None or figure.high is not None:
        top = y(min(high, figure.high)) if figure.high is not None else 0.0
        end = y(max(low, figure.low)) if figure.low is not None else float(_HEIGHT)
        band = (top, max(0.0, end - top)) if end > top else None
    return Curve(
        figure.title, values[-1], low, high, (int(first), int(last)), path,
        (x(last), y(values[-1])), band,
        figure.problem(values[-1]),
    )  # fmt: skip
