"""Data by the names that a user gives: a file, a dataset of the hub, a stage of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.tasks.sources import TaskFileConfig, count_prompts, dataset_task, file_task
from plumbline.data.reader import DataFormatConfig
from plumbline.data.records import Conversation
from plumbline.data.sources import source_at
from plumbline.data.tasks import Task
from plumbline.errors import ArtifactError, ConfigError, DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import Deferred, defer
from plumbline.runs.find import find_artifact
from plumbline.runs.run import Run
from plumbline.training.prompt_rounds import dataset_prompts, too_few
from preference.label_sources import import_labels, pair_labels
from preference.pairs_config import LabelFileConfig, PreferenceFileConfig
from preference.sources import import_preferences
from sft.build import build_demonstrations
from sft.config import DemonstrationsConfig
from sft.sources import Demonstrations, from_dataset, from_file
from sft.versions.history import find_version


def find_demonstrations(
    run: Run,
    data: str,
    eval_data: str | None,
    config: DemonstrationsConfig,
    data_seed: int,
    name: str = "demonstrations",
) -> Artifact:
    """Return demonstrations: a version or artefact by its name, or made from a file or dataset.

    ``name`` is that of the stage which makes them.
    """
    artifact = _artifact(run, data, "demonstrations", eval_data)
    if artifact is not None:
        if name == "demonstrations":  # replayed data share the settings of the others
            _refuse_ineffective(config, data, artifact)
        return artifact
    held_out = {}
    if eval_data is not None:
        dataset = _artifact(run, eval_data, "demonstrations", None)
        held_out["held_out"] = (
            _demonstrations(eval_data, config)
            if dataset is None
            else defer(held_out_demonstrations, dataset=dataset)
        )
    return run.make(
        name,
        build_demonstrations,
        config=config,
        source=_demonstrations(data, config),
        data_seed=data_seed,
        **held_out,
    )


def find_preferences(
    run: Run, data: str, eval_data: str | None, config: PreferenceFileConfig, data_seed: int
) -> Artifact:
    """Return preferences: an artefact by its name, or one made from a file or dataset.

    Of labelled responses (the artefact of `find_labels`), pairs are made.
    """
    labels = find_artifact(run.home, data)
    if labels is not None and labels.kind == "unpaired":
        _refuse_ineffective(config, data, labels)
        return run.make(
            "preferences", pair_labels, labels=labels, pairs_per_prompt=4, seed=data_seed
        )
    artifact = _artifact(run, data, "preferences", eval_data)
    if artifact is not None:
        _refuse_ineffective(config, data, artifact)
        return artifact
    held_out: dict[str, Any] = {}
    if eval_data is not None:
        dataset = _artifact(run, eval_data, "preferences", None)
        held_out["held_out"] = source_at(eval_data) if dataset is None else dataset
    return run.make(
        "preferences",
        import_preferences,
        config=config,
        file=source_at(data),
        data_seed=data_seed,
        **held_out,
    )


def find_labels(run: Run, data: str, config: LabelFileConfig, data_seed: int) -> Artifact:
    """Return labelled responses: an artefact of them, preferences, or what is made from a file."""
    artifact = find_artifact(run.home, data)
    if artifact is None:
        file = source_at(data)
        return run.make("labels", import_labels, config=config, file=file, data_seed=data_seed)
    if artifact.kind not in ("unpaired", "preferences"):
        raise ArtifactError(
            f"{data!r} is {artifact.id}, whose kind is {artifact.kind!r}. Give labelled responses, "
            "preferences, or a file."
        )
    _refuse_ineffective(config, data, artifact)
    return artifact


def find_task(
    run: Run, data: str, split: str, config: TaskFileConfig, data_seed: int
) -> Deferred[Task]:
    """Return prompts with their references: those of an artefact's split, or those of a file."""
    artifact = find_artifact(run.home, data)
    if artifact is not None:
        return defer(dataset_task, dataset=artifact, split=split)
    return defer(file_task, file=source_at(data), config=config, data_seed=data_seed)


def find_prompts(
    run: Run, data: str, split: str, config: TaskFileConfig, data_seed: int
) -> Deferred[Sequence[Conversation]]:
    """Return prompts alone."""
    artifact = find_artifact(run.home, data)
    if artifact is not None:
        return defer(dataset_prompts, dataset=artifact, split=split)
    task = defer(file_task, file=source_at(data), config=config, data_seed=data_seed)
    return defer(prompts_of, task=task)


def held_out_demonstrations(dataset: Artifact) -> Demonstrations:
    """Return the held-out demonstrations of a run's dataset."""
    return from_dataset(dataset, "test")


def check_prompts(
    file: Path, config: TaskFileConfig, data_seed: int, needed: int, setting: str
) -> None:
    """Raise `DataError` where a file has fewer prompts than one round answers."""
    count = count_prompts(file, config, data_seed, needed)
    if count < needed:
        raise DataError(f"{file}: {too_few(count, needed, setting)}")


def prompts_of(task: Task) -> list[Conversation]:
    """Return the prompts of a task."""
    return task.prompts


def _demonstrations(place: str, config: DemonstrationsConfig) -> Deferred[Any]:
    return defer(from_file, file=source_at(place), config=config)


def _refuse_ineffective(config: DataFormatConfig, data: str, artifact: Artifact) -> None:
    """Refuse settings of reading a file where the data are read already."""
    plain = type(config)()
    changed = [n for n in type(config).model_fields if getattr(config, n) != getattr(plain, n)]
    if changed:
        raise ConfigError(
            f"{changed[0]} has no effect here: {data!r} is {artifact.id}, which was read and split "
            "when it was made. Leave it out, or give the file."
        )


def _artifact(run: Run, data: str, kind: str, eval_data: str | None) -> Artifact | None:
    artifact = find_version(run.home, data) or find_artifact(run.home, data)
    if artifact is None:
        return None
    if artifact.kind != kind:
        raise ArtifactError(
            f"{data!r} is {artifact.id}, whose kind is {artifact.kind!r}. Give {kind}, or a file."
        )
    if eval_data is not None:
        raise ArtifactError(
            f"{data!r} is {artifact.id}, which has its own held-out split. Leave eval_data out."
        )
    return artifact
