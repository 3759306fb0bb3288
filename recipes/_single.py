"""What the recipes of one stage share: a model and data by name, and two seeds."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from evaluation.config import EvaluationConfig
from evaluation.evaluate import sample_and_measure
from evaluation.measures.registry import MeasuresConfig, select_measures
from evaluation.tasks.sources import TaskFileConfig
from plumbline.config import Config, Seed
from plumbline.data.reader import DataFormatConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import Deferred
from plumbline.runs.run import Run
from recipes._judge import Judge, build_judge, sample_start
from recipes._models import find_model
from recipes._scorers import named_scorer

#: Few enough for an evaluation within minutes.
EVALUATION = EvaluationConfig(prompts=100, prompts_during_training=50)


class SingleConfig(Config):
    """What every stage alone is given."""

    model: str
    """The model to start from: a hub name, a folder, a GGUF file, run:stage, or the id of an
    artefact."""
    data: str
    """The data: a file, a dataset of the hub (org/name), run:stage, the id of an artefact, or a
    dataset that was built (NAME or NAME@v2). docs/formats.md lists the formats."""
    seed: Seed = 0
    """Seed of initial weights, batch order and sampling."""
    data_seed: Seed = 0
    """Seed of splits, and of the responses that are evaluated."""


class TrainConfig(SingleConfig):
    """What every training alone is given."""

    eval_data: str | None = None
    """Held-out data of the same kind, named likewise; of a run's dataset, its held-out split. Null:
    a share of the prompts in ``data`` is held out."""

    @model_validator(mode="after")
    def _one_way_to_hold_out(self) -> TrainConfig:
        for name, info in type(self).model_fields.items():
            child = getattr(self, name)
            share = getattr(child, "held_out_share", None)
            if share is not None and share != info.default.held_out_share and self.eval_data:
                raise ValueError(
                    f"{name}.held_out_share is {share}, which has no effect here: it needs "
                    "eval_data: null. Leave one of the two out"
                )
        return self


class PromptsConfig(DataFormatConfig):
    """How prompts are read from a file."""

    leave_out_bad_rows: bool = True
    """Leave out rows that cannot be read, and count them. False: the first one is an error."""

    def rows(
        self, split: str = "all", rows: int | None = None, share: float = 0.1
    ) -> TaskFileConfig:
        """Return how some of the rows are read: those of a split, and at most so many."""
        return TaskFileConfig.model_validate(
            {name: getattr(self, name) for name in PromptsConfig.model_fields}
            | {"split": split, "rows": rows, "held_out_share": share}
        )


class SplitPromptsConfig(PromptsConfig):
    """How prompts are read from a file and split."""

    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts that training never sees, for evaluations."""

    def part(self, split: str) -> TaskFileConfig:
        """Return how one part is read: ``train``, ``held_out`` or ``all``."""
        return self.rows(split, share=self.held_out_share)


def other_reference(run: Run, reference: str | None, start: Artifact) -> Artifact | None:
    """Return the reference by its name; None where it is what training starts from."""
    if reference is None:
        return None
    artifact = find_model(run, reference, "reference")
    return None if artifact.id == start.id else artifact


def reward_scorers(run: Run, reward: str | None, label: str | None = None) -> list[Deferred[Any]]:
    """Return the scorer that a user names (`recipes._scorers.named_scorer`), or none.

    ``label``: of a classifier with two labels, the good one.
    """
    if reward is None:
        return []
    return [named_scorer(reward, lambda name: find_model(run, name, "reward"), label)]


def judge_of(
    run: Run,
    policy: Artifact,
    task: Deferred[Any],
    scorers: list[Deferred[Any]],
    config: EvaluationConfig,
    measures: MeasuresConfig,
    data_seed: int,
    reference: Artifact | None = None,
) -> Judge:
    """Evaluate the start; return what evaluates the trained policy against it.

    KL is that to the ``reference``; without one, to the start.
    """
    return build_judge(
        run,
        policy,
        sample_start(run, policy, task, config, data_seed),
        config=config,
        task=task,
        scorers=scorers,
        measures=select_measures(measures, None),
        data_seed=data_seed,
        reference=reference,
    )


def evaluate_trained(
    run: Run, name: str, trained: Artifact, reference: Artifact, judge: Judge
) -> dict[str, Any]:
    """Evaluate the trained policy; return its metrics."""
    evaluation = sample_and_measure(
        run, name, policy=trained, reference=reference, harness=judge.harness
    )
    return dict(evaluation.metrics)
