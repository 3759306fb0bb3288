"""Other tasks beside the new one: their rows, their held-out losses, and how far those may rise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from plumbline.errors import ConfigError
from plumbline.runs.processes import number_of_processes
from plumbline.seeds import derive
from plumbline.training.row_file import file_in
from plumbline.training.task_mixture import TaskSampler, TaskWeights
from sft.config import OtherTasksConfig, SFTConfig
from sft.tokenized import TOKEN_WEIGHTS, with_weights

if TYPE_CHECKING:
    from datasets import Dataset

TASK = "task"
"""The column of the tokenised dataset with the number of a row's task; 0 is the new one."""


@dataclass
class Tasks:
    """The tasks of one training: the new one first, then the others by name."""

    names: Sequence[str]
    """Names of the others."""
    sizes: Sequence[int]
    """Rows of every task."""
    held_out: Sequence[Dataset]
    """Held-out rows of the others."""
    config: OtherTasksConfig
    weights: TaskWeights
    epochs: float
    """How often each new row is drawn, on average."""
    seed: int
    start_losses: dict[str, float] = field(default_factory=dict)
    """Held-out losses of the others before the first step."""

    def sampler(self, *, max_steps: int, rows_per_step: int) -> TaskSampler:
        """Return what draws all rows of the training; by epochs if ``max_steps`` is -1."""
        by_epochs = round(self.epochs * self.sizes[0] / (1 - self.config.share))
        rows = max_steps * rows_per_step if max_steps > 0 else by_epochs
        return TaskSampler(
            self.sizes, self.weights, rows=rows, rows_per_step=rows_per_step, seed=self.seed
        )

    def order(self, step: int) -> Random:
        """Return the order in which a step looks for conflicts."""
        return Random(derive(self.seed, "conflicts", step))

    def drifts(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Return how far the others' losses are above what they were, as figures."""
        return {
            f"drift/{name}": losses[f"held_out_loss/{name}"] - start
            for name, start in self.start_losses.items()
        }

    def allows(self, metrics: Mapping[str, float]) -> bool:
        """Return whether no other task's loss rose by more than it may."""
        most = self.config.max_rise
        return most is None or all(metrics[f"drift/{name}"] <= most for name in self.names)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        return {"weights": self.weights.state(), "start_losses": self.start_losses}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.weights.restore(state["weights"])
        self.start_losses = dict(state["start_losses"])


def join_tasks(
    new: Dataset,
    others: Mapping[str, tuple[Dataset, Dataset]],
    config: SFTConfig,
    seed: int,
    folder: Path | None,
) -> tuple[Dataset, Tasks]:
    """Return the rows of all tasks one behind another, and what the training does with them.

    ``others`` have tokenised rows to train on and held-out ones; what is added to rows is written
    to ``folder``, or held in memory without one. Raises `ConfigError` where the weights do not
    match the tasks, or several processes would share the training.
    """
    from datasets import concatenate_datasets

    if number_of_processes() > 1:
        raise ConfigError(
            "Several tasks train in one process for now. Start it without --launch ddp, or leave "
            "the other tasks out."
        )
    mix = config.other_tasks
    if mix.weights and len(mix.weights) != len(others):
        raise ConfigError(
            f"other_tasks.weights has {len(mix.weights)} numbers, and there are {len(others)} "
            f"other tasks: {', '.join(others)}. Give one for each, or none."
        )
    among = mix.weights or (1.0,) * len(others)
    shares = [mix.share * weight / sum(among) for weight in among]
    parts = _all_with_weights([new, *(train for train, _ in others.values())], folder)
    rows = concatenate_datasets(
        [part.add_column(TASK, [number] * len(part)) for number, part in enumerate(parts)]
    )
    tasks = Tasks(
        tuple(others),
        [len(part) for part in parts],
        [test for _, test in others.values()],
        mix,
        TaskWeights([1 - mix.share, *shares], moves=mix.sampling == "dynamic"),
        config.training.epochs,
        seed,
    )
    return rows, tasks


def _all_with_weights(parts: Sequence[Dataset], folder: Path | None) -> list[Dataset]:
    """Return datasets that all have weights of tokens where one of them has."""
    if not any(TOKEN_WEIGHTS in part.column_names for part in parts):
        return list(parts)
    return [
        part
        if TOKEN_WEIGHTS in part.column_names
        else with_weights(
            part,
            ([float(label != -100) for label in labels] for labels in part["labels"]),
            file_in(folder, f"task-{number}.arrow"),
        )
        for number, part in enumerate(parts)
    ]
