"""Where a comparison's figures come from: curves, costs, lineage, settings, rows left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.training_runs import COSTS, Trained
from evaluation.statistics import mean_and_error
from plumbline.data.records import Row
from plumbline.dropped import DROPPED, Dropped
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import METRICS, read_metrics

#: Figures of metrics.jsonl that are worth a curve, and what they are called.
_CURVES = {
    "loss": "loss",
    "rewards/accuracies": "implied accuracy",
    "accuracy": "accuracy",
    "score": "reward-model score",
    "kl": "KL",
}


def training(stages: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Return one row for every training figure that is worth a curve."""
    rows = []
    for name, artifact in stages.items():
        path = artifact.path / METRICS
        for line in read_metrics(path) if path.exists() else ():
            rows += [
                {"stage": name, "step": line["step"], "figure": shown, "value": line[key]}
                for key, shown in _CURVES.items()
                if line.get(key) is not None
            ]
    return rows


def costs(groups: Mapping[str, Sequence[Trained]]) -> list[dict[str, Any]]:
    """Return what each method cost, as means over its seeds."""
    return [
        {
            "method": method,
            **{name: _mean([one.final.costs.get(name) for one in group]) for name in COSTS},
            "memory": _mean([one.memory for one in group]),
        }
        for method, group in groups.items()
    ]


def parts(
    groups: Mapping[str, Sequence[Trained]], baseline: Sequence[Row], judge: str
) -> list[dict[str, Any]]:
    """Return what the judge's score is made of, on average, for each method."""
    answers = {"baseline": list(baseline)} | {
        method: [row for one in group for row in one.final.rows] for method, group in groups.items()
    }
    return [
        {"policy": name, "part": part.removeprefix(f"{judge}."), "points": mean}
        for name, rows in answers.items()
        if rows
        for part in [key for key in rows[0] if key.startswith(f"{judge}.")]
        if (mean := _mean([row.get(part) for row in rows])) is not None
    ]


def lineage(stages: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Return one row a stage: what it made, from which stages, at what cost."""
    names = {artifact.id: name for name, artifact in stages.items()}
    rows = []
    for name, artifact in stages.items():
        manifest = artifact.manifest
        rows.append(
            {
                "stage": name,
                "artifact": manifest.id,
                "inputs": list(dict.fromkeys(names.get(i, i) for i in manifest.inputs.values())),
                "seconds": manifest.seconds,
                "memory": manifest.peak_memory_bytes,
                "seed": manifest.seed if manifest.seed is not None else manifest.data_seed,
            }
        )
    return rows


def left_out(stages: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Return what each stage left out, with reasons and row numbers."""
    return [
        {"stage": name, "reason": reason, "count": count, "rows": numbers}
        for name, artifact in stages.items()
        if (artifact.path / DROPPED).exists()
        for reason, count, numbers in Dropped.read(artifact.path).by_reason(at_most=12)
    ]


def differences(groups: Mapping[str, Sequence[Trained]]) -> list[dict[str, Any]]:
    """Return the settings in which methods differ: one row a key, one value a method."""
    settings = {method: group[0].settings for method, group in groups.items()}
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    rows = []
    for key in keys:
        values = {method: found.get(key, "–") for method, found in settings.items()}
        if len(set(values.values())) > 1:
            rows.append({"key": key, "values": values})
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return mean_and_error(known).mean if known else None
