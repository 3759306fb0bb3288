"""The training runs and the baseline of a recipe's run, finished or in progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.comparison.training_runs import (
    Baseline,
    TrainingRun,
    baseline_of,
    title_of,
    training_runs_of,
    unfinished_training_run,
)
from plumbline.errors import ArtifactError
from plumbline.runs.artifacts import Artifact, Store
from plumbline.runs.run import RunRecord
from plumbline.runs.run_file import RUN_FILE

#: The kind of artefact that a training makes.
POLICY = "policy"
BASELINE_STAGE = "evaluation/sft"


def find_run(home: Path, name: str) -> RunRecord:
    """Return a run by its name; raise `ArtifactError` that names the existing ones."""
    if not (home / name / RUN_FILE).exists():
        runs = sorted(path.parent.name for path in home.glob(f"*/{RUN_FILE}"))
        raise ArtifactError(
            f"There is no run {name!r} in {home}; there are {', '.join(runs) or 'none'}."
        )
    return RunRecord(home / name)


def missing_in(record: RunRecord, runs: Sequence[TrainingRun]) -> list[str]:
    """Say what the design of a run still lacks: nothing where the run is finished."""
    if record.status == "finished":
        return []
    unfinished = {
        f"{run.method}/seed-{run.seed}": run.final.step for run in runs if not run.is_finished
    }
    stages = record.artifacts
    names = [
        name
        for name in dict.fromkeys([*record.planned, *unfinished])
        if not name.startswith("evaluation/")
    ]
    missing = []
    for name in names:
        method, _, seed = name.rpartition("/seed-")
        shown = f"{title_of(method)}, seed {seed}"
        if name in unfinished:
            missing.append(f"{shown}: in training, evaluated at step {unfinished[name]}")
        elif name not in stages:
            now = "in training" if name in record.making else "not trained yet"
            missing.append(f"{shown}: {now}")
        elif f"evaluation/{name}" not in stages:
            missing.append(f"{shown}: trained, not evaluated yet")
    if not missing:
        missing += [f"the stage {stage}" for stage in record.making]
    return missing


def training_runs_in(record: RunRecord) -> tuple[list[TrainingRun], Baseline | None]:
    """Return the training runs of a recipe's run and its baseline, unfinished ones included.

    A stage ``evaluation/METHOD/seed-N`` beside a stage ``METHOD/seed-N`` is a finished training
    run.
    """
    stages = record.artifacts
    methods: dict[str, dict[str, dict[str, Artifact]]] = {}
    unfinished = []
    for name, artifact in stages.items():
        method, _, seed = name.rpartition("/seed-")
        if not method or artifact.kind != POLICY:
            continue
        evaluation = stages.get(f"evaluation/{name}")
        if evaluation is not None:
            by_seed = methods.setdefault(method, {})
            by_seed[seed] = {"policy": artifact, "evaluation": evaluation}
        elif (run := unfinished_training_run(method, seed, artifact.path)) is not None:
            unfinished.append(run)
    for stage, artifact_id in record.making.items():
        method, _, seed = stage.rpartition("/seed-")
        if artifact_id.startswith(f"{POLICY}-") and method:
            folder = Store(record.store.root).partial(artifact_id) / "out"
            if (run := unfinished_training_run(method, seed, folder)) is not None:
                unfinished.append(run)
    baseline = stages.get(BASELINE_STAGE)
    return (
        [*training_runs_of(methods), *unfinished],
        None if baseline is None else baseline_of(baseline),
    )
