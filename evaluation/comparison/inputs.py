"""The inputs of `plumbline compare`: runs, files of samples, and scorers for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluation.comparison.external_samples import SamplesFile, read_samples_file
from evaluation.comparison.recipe_runs import find_run, missing_in, training_runs_in
from evaluation.comparison.training_runs import Baseline, TrainingRun
from plumbline.errors import DataError
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import rebuild
from plumbline.runs.run import RunRecord


@dataclass
class ComparisonInputs:
    """Training runs from several places, with the baseline."""

    runs: list[TrainingRun] = field(default_factory=list)
    baseline: Baseline | None = None
    stages: dict[str, Artifact] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What the runs in progress still lack."""
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    """The settings of each run."""

    @property
    def has_single_models(self) -> bool:
        """Whether each method has one seed and one checkpoint."""
        methods = {run.method for run in self.runs}
        return len(methods) == len(self.runs) and all(len(r.checkpoints) == 1 for r in self.runs)


def gather_inputs(
    home: Path, runs: Sequence[str], files: Sequence[Path], baseline_model: str | None = None
) -> ComparisonInputs:
    """Return everything that is to be compared.

    Responses in files that lack a score are scored by the judges of the runs. The model that is
    named ``baseline_model`` becomes the baseline.
    """
    inputs = ComparisonInputs()
    computed: set[str] = set()
    scorers: list[Scorer] = []
    for name in runs:
        record = find_run(home, name)
        training_runs, baseline = training_runs_in(record)
        if not training_runs:
            raise DataError(
                f"Run {name!r} has no evaluated policies to compare: it has the stages "
                f"{', '.join(record.artifacts) or 'none'}. A training is compared by its stages "
                "METHOD/seed-N and evaluation/METHOD/seed-N."
            )
        stages = record.artifacts
        if not scorers and files:
            scorers = _scorers(stages, record)
        inputs.stages |= {s if len(runs) == 1 else f"{name}: {s}": a for s, a in stages.items()}
        inputs.baseline = inputs.baseline or baseline
        _add(inputs, training_runs, name)
        inputs.settings[name] = record.settings
        computed.update(scorer for run in training_runs for scorer in run.scorers)
        if record.status != "finished":
            inputs.notes.append(f"Run {name!r} is {record.status}; what it has made is compared.")
            inputs.missing += missing_in(record, training_runs)
    for file in dict.fromkeys(files):
        _add_samples(inputs, read_samples_file(file), scorers, computed)
    if baseline_model is not None:
        _take_baseline(inputs, baseline_model)
    if not inputs.runs:
        raise DataError(
            f"There is nothing but the baseline {baseline_model!r} to compare. Add the samples of "
            "another model, or choose another baseline."
        )
    return inputs


def _add_samples(
    inputs: ComparisonInputs, samples: SamplesFile, scorers: Sequence[Scorer], computed: set[str]
) -> None:
    """Add the training runs of a file, and what there is to say about them.

    ``computed``: scores of the runs of recipes.
    """
    own = {name for sample in samples.samples for name in sample.scores}
    for name in sorted(computed & own):
        inputs.notes.append(
            f"The scores {name!r} of {samples.path.name} are the file's own; those of the runs "
            "were computed here. They compare only if both are by the same judge."
        )
    inputs.notes += samples.notes
    _add(inputs, samples.training_runs(scorers), samples.path.stem)


def _add(inputs: ComparisonInputs, runs: Sequence[TrainingRun], origin: str) -> None:
    """Add training runs, the same policy once; other ones of a known name get their origin."""
    known = {(run.method, run.seed): run for run in inputs.runs}
    clashing = {
        run.method
        for run in runs
        if (other := known.get((run.method, run.seed))) and other.source != run.source
    }
    mark = _mark(origin, clashing, {run.method for run in inputs.runs})
    for run in runs:
        if run.method in clashing:
            title = f"{run.title or run.method}{mark}"
            inputs.runs.append(replace(run, method=f"{run.method}{mark}", title=title))
        elif (run.method, run.seed) not in known:
            inputs.runs.append(run)


def _mark(origin: str, clashing: Collection[str], taken: Collection[str]) -> str:
    """Return what tells methods of known names by their origin; files may share a name, too."""
    mark, number = f" ({origin})", 1
    while any(f"{method}{mark}" in taken for method in clashing):
        number += 1
        mark = f" ({origin} {number})"
    return mark


def _take_baseline(inputs: ComparisonInputs, model: str) -> None:
    matching = [run for run in inputs.runs if run.method == model]
    if not matching:
        names = ", ".join(dict.fromkeys(run.method for run in inputs.runs))
        raise DataError(f"There is no model {model!r} to be the baseline; there are {names}.")
    first = matching[0]
    inputs.baseline = Baseline(model, first.title or model, first.final)
    if len(matching) > 1:
        inputs.notes.append(f"The baseline is {first.name}, the first of its seeds.")
    inputs.runs = [run for run in inputs.runs if run.method != model]


def _scorers(stages: dict[str, Artifact], record: RunRecord) -> list[Scorer]:
    """Return the judges of a run's own evaluations, rebuilt from their description."""
    for name, artifact in stages.items():
        if name.startswith("evaluation/"):
            harness = artifact.manifest.arguments["arguments"]["harness"]["arguments"]
            return [rebuild(scorer, record.store) for scorer in harness["scorers"]]
    return []
