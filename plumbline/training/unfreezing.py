"""Progressive unfreezing (Howard and Ruder, 2018): the last layer first, all others by schedule."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from plumbline.errors import ConfigError
from plumbline.lm.layers import layer_groups, unfrozen_groups
from plumbline.runs.processes import number_of_processes


class ProgressiveUnfreezing(TrainerCallback):  # type: ignore[misc]
    """Freezes and unfreezes groups of layers before each step.

    All weights must train when the optimiser is made, which then knows all of them. A weight that
    is frozen has no gradient, and the optimiser leaves it alone, weight decay among that.
    """

    def __init__(self, model: Any, unfrozen_by: float) -> None:
        if number_of_processes() > 1:
            raise ConfigError(
                "tuning.method is progressive, and several processes share this training: each "
                "would wait for gradients of layers that are frozen. Train in one process, or set "
                "tuning.method to full."
            )
        self._groups, self._unfrozen_by = layer_groups(model), unfrozen_by

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Let the groups train that train in this step."""
        count = unfrozen_groups(
            state.global_step, state.max_steps, len(self._groups), self._unfrozen_by
        )
        for number, group in enumerate(self._groups):
            for parameter in group:
                parameter.requires_grad_(number < count)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Leave the model as one that trains as a whole."""
        for group in self._groups:
            for parameter in group:
                parameter.requires_grad_(True)
