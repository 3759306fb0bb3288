"""Training an ensemble in one stage: its members one after the other, on one frozen base.

Each member is a reward model in a folder of its own. A stage that is killed keeps the members that
are done, and the checkpoint of the one that was not.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from plumbline.data.records import Row
from plumbline.runs.artifacts import read_json, write_json
from plumbline.runs.metrics import METRICS, read_metrics
from plumbline.runs.stage import Stage
from plumbline.seeds import derive
from reward.calibration import Calibration
from reward.config import EnsembleConfig
from reward.content import ENSEMBLE
from reward.ensemble import EnsembleScorer
from reward.metrics import pairwise_accuracy
from reward.pairs import responses
from reward.temperature import fit_temperature

Metrics = dict[str, float | None]


def train_members(
    stage: Stage,
    config: EnsembleConfig,
    train: Callable[[Stage, int], Metrics],
    seed: int,
    test: Sequence[Row],
    max_length: int,
) -> Metrics:
    """Train the members by ``train``, each with its seed; return the metrics of the ensemble.

    A figure of several members is their mean, but for the accuracy, which is that of the ensemble.
    """
    parts = [stage.part(f"member-{number}") for number in range(config.members)]
    # All processes look before any of them trains, so that all of them leave out the same.
    done = [_metrics_of(part) for part in parts]
    metrics: list[Metrics] = []
    for number, (part, known) in enumerate(zip(parts, done, strict=True)):
        stage.say(f"member {number + 1} of {config.members}" + (", done before" if known else ""))
        with part:
            metrics.append(known or train(part, derive(seed, "member", number) % 2**32))
        if stage.writes and not known:
            write_json(part.done_file, metrics[-1])
    if not stage.writes:
        return {}
    write_json(
        stage.folder / ENSEMBLE,
        {
            "members": [part.folder.name for part in parts],
            "how": config.how,
            "uncertainty_weight": config.uncertainty_weight,
        },
    )
    _write_mean_metrics(stage, [part.folder for part in parts])
    scorer = EnsembleScorer.read(stage.folder)
    chosen, rejected = (scorer.score(*responses(test, side)) for side in ("chosen", "rejected"))
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    # Members are on a scale already; the ensemble has a temperature of its own.
    Calibration(max_length=max_length, temperature=fit_temperature(margins)).write(stage.folder)
    means = _means(metrics)
    return {
        **means,
        "accuracy": pairwise_accuracy(chosen, rejected),
        "member_accuracy": means["accuracy"],
        "members": float(config.members),
        "disagreement": statistics.mean(scorer.ensemble_std(*responses(test, "chosen"))),
    }


def _metrics_of(part: Stage) -> Metrics | None:
    metrics: Metrics | None = read_json(part.done_file) if part.done_file.exists() else None
    return metrics


def _means(rows: Sequence[Mapping[str, float | None]]) -> Metrics:
    """Return the mean of each figure over the rows that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            values[name] += [] if value is None else [value]
    return {name: statistics.mean(known) if known else None for name, known in values.items()}


def _write_mean_metrics(stage: Stage, folders: Sequence[Path]) -> None:
    """Write the stage's metrics: at each step the means over the members."""
    by_step: dict[int, list[Mapping[str, float | None]]] = defaultdict(list)
    for folder in folders:
        for line in read_metrics(folder / METRICS):
            by_step[int(line["step"])].append(
                {
                    name: value
                    for name, value in line.items()
                    if name != "step" and (value is None or isinstance(value, int | float))
                }
            )
    stage.metrics.rewind(0)  # of an attempt that was killed here
    for step in sorted(by_step):
        stage.metrics.log(step, _means(by_step[step]))
