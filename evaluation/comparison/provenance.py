"""Where the numbers of a comparison come from: curves, costs, lineage, settings, dropped rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.training_runs import TrainingRun
from plumbline.data.records import Row
from plumbline.dropped import count_dropped
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import METRICS, read_metrics
from plumbline.statistics import mean_and_se

#: Metrics of metrics.jsonl that are shown as curves, with their titles.
_CURVES = {
    "loss": "loss",
    "rewards/accuracies": "implied accuracy",
    "accuracy": "accuracy",
    "score": "reward-model score",
    "kl": "KL",
}


def training_curves(stages: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Return one row per stage, step and training metric that is shown as a curve."""
    rows = []
    for name, artifact in stages.items():
        path = artifact.path / METRICS
        for line in read_metrics(path) if path.exists() else ():
            rows += [
                {"stage": name, "step": line["step"], "metric": title, "value": line[key]}
                for key, title in _CURVES.items()
                if line.get(key) is not None
            ]
    return rows


def score_parts(
    groups: Mapping[str, Sequence[TrainingRun]], baseline: Sequence[Row], judge: str
) -> list[dict[str, Any]]:
    """Return the mean parts of the judge's score for each method, and for the baseline (None)."""
    responses: dict[str | None, list[Row]] = {None: list(baseline)}
    for method, group in groups.items():
        responses[method] = [row for run in group for row in run.final.rows]
    return [
        {"method": name, "part": part.removeprefix(f"{judge}."), "mean": mean}
        for name, rows in responses.items()
        if rows
        for part in [key for key in rows[0] if key.startswith(f"{judge}.")]
        if (mean := _mean([row.get(part) for row in rows])) is not None
    ]


def lineage(stages: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Return one row per stage: its artefact, its inputs, its cost."""
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


def dropped_rows(stages: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Return the rows that each stage left out, by reason, with row numbers."""
    return [
        {"stage": name, "reason": reason, "count": count, "rows": numbers}
        for name, artifact in stages.items()
        for reason, count, numbers in count_dropped(artifact.path).by_reason(at_most=12)
    ]


def different_settings(groups: Mapping[str, Sequence[TrainingRun]]) -> list[dict[str, Any]]:
    """Return the settings in which methods differ: one row per key, one value per method."""
    return _different({method: group[0].settings for method, group in groups.items()})


def different_run_settings(settings: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the settings in which runs differ: one row per key, one value per run."""
    return _different(settings) if len(settings) > 1 else []


def _different(settings: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for key in dict.fromkeys(key for values in settings.values() for key in values):
        values = {name: of_name.get(key, "–") for name, of_name in settings.items()}
        if len(set(values.values())) > 1:
            rows.append({"key": key, "values": values})
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return mean_and_se(known).mean if known else None
