"""Gathering what `plumbline compare` is given: runs, files of samples, and scorers for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluation.comparison.external_samples import read_samples_file
from evaluation.comparison.page_content import record_of, trainings_of
from evaluation.comparison.training_runs import Look, Trained
from plumbline.errors import DataError
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import rebuild
from plumbline.runs.run import RunRecord


@dataclass
class Gathered:
    """Trainings from several places, with the policy they are measured from."""

    trained: list[Trained] = field(default_factory=list)
    baseline: Look | None = None
    stages: dict[str, Artifact] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def gather(
    home: Path, runs: Sequence[str], files: Sequence[Path], baseline_model: str | None = None
) -> Gathered:
    """Return everything that is to be compared.

    Answers in files are scored by the runs' own judges, where they lack a score. A model of a file
    that is named ``baseline_model`` becomes the baseline.
    """
    found = Gathered()
    scorers: list[Scorer] = []
    for name in runs:
        record = record_of(home, name)
        trained, baseline = trainings_of(record)
        if not trained:
            raise DataError(
                f"Run {name!r} has no judged policies to compare: it has the stages "
                f"{', '.join(record.artifacts) or 'none'}. A training is compared by its stages "
                "METHOD/seed-N and evaluation/METHOD/seed-N."
            )
        stages = record.artifacts
        if not scorers and files:
            scorers = _scorers(stages, record)
        found.stages |= {s if len(runs) == 1 else f"{name}: {s}": a for s, a in stages.items()}
        found.baseline = found.baseline or baseline
        _add(found, trained, name)
        if record.status != "finished":
            found.notes.append(f"Run {name!r} is {record.status}; what it has made is compared.")
    for file in files:
        _add(found, read_samples_file(file, scorers), file.stem)
    if baseline_model is not None:
        _take_baseline(found, baseline_model)
    return found


def _add(found: Gathered, trained: Sequence[Trained], origin: str) -> None:
    """Add trainings; the same policy once, and different ones of the same name by their origin."""
    known = {(one.method, one.seed): one for one in found.trained}
    clash = {
        one.method
        for one in trained
        if (other := known.get((one.method, one.seed))) and other.source != one.source
    }
    for one in trained:
        if one.method in clash:
            found.trained.append(replace(one, method=f"{one.method} ({origin})"))
        elif (one.method, one.seed) not in known:
            found.trained.append(one)


def _take_baseline(found: Gathered, model: str) -> None:
    chosen = [one for one in found.trained if one.method == model]
    if not chosen:
        names = ", ".join(dict.fromkeys(one.method for one in found.trained))
        raise DataError(f"There is no model {model!r} to be the baseline; there are {names}.")
    found.baseline = chosen[0].final
    if len(chosen) > 1:
        found.notes.append(f"The baseline is {chosen[0].name}, the first of its seeds.")
    found.trained = [one for one in found.trained if one.method != model]


def _scorers(stages: dict[str, Artifact], record: RunRecord) -> list[Scorer]:
    """Return the judges of a run's own evaluations, made again from their description."""
    for name, artifact in stages.items():
        if name.startswith("evaluation/"):
            harness = artifact.manifest.arguments["arguments"]["harness"]["arguments"]
            return [rebuild(scorer, record.store) for scorer in harness["scorers"]]
    return []
