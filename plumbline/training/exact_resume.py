"""What every training stage shares: exact resume, progress and metrics.

With `ExactResume` a trainer of transformers or TRL keeps its checkpoints without pickle, and
resumes from one with the same bytes as if it had never been stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_callback import ExportableState

from plumbline.errors import ModelError
from plumbline.lm.gpu.packed_forward import use_packed_backbone
from plumbline.lm.sharding import casts, held, problem_with_shares, whole
from plumbline.lm.tuning import TuningConfig, parameter_counts
from plumbline.runs.checkpoints import rng_state, set_rng_state
from plumbline.runs.processes import check_processes, of_all_processes, sharding
from plumbline.runs.progress import Bar
from plumbline.runs.stage import Stage
from plumbline.training.held_out import HeldOutWatch
from plumbline.training.monitor import Monitor
from plumbline.training.processes import sum_gradients, use_one_gpu
from plumbline.training.sharding import assign, load_optimizer, sharded
from plumbline.training.trackers import tracking
from plumbline.training.unfreezing import ProgressiveUnfreezing
from plumbline.training.zero import ZeroOptimizer

#: Figures of the trainers that depend on the clock, or on where a run was cut.
_NOT_REPRODUCIBLE = ("runtime", "per_second", "flos", "train_loss", "time")


class ExactResume(Trainer):  # type: ignore[misc]
    """A trainer whose checkpoints hold all state, in safetensors and JSON.

    Overrides the five places where `transformers.Trainer` writes or reads pickled state, and adds
    what it forgets: TRL's token counter and the length of the metrics file. On a GPU the model
    reads its rows by packed passes, where these are right for it (`use_packed_backbone`). Several
    processes may share a training, if they were started for it; the first one writes. They may
    share the weights, too: the model then comes in shares (`plumbline.training.sharding.loaded`).
    """

    stage: Stage
    optimizer: Any
    _zero: ZeroOptimizer | None = None  # the optimiser, where DeepSpeed shares it out
    calls_model = True
    """Whether a loss comes from one call of the model, in whose backward pass DDP adds gradients
    up. Where a trainer's passes go through parts of the model, they are averaged after it."""

    def __init__(self, *, model: Any, tuning: TuningConfig | None = None, **arguments: Any) -> None:
        # Counted here, since a trainer may add a frozen copy of the adapter.
        self.parameter_counts = parameter_counts(model)
        use_one_gpu(arguments["args"])
        self.trained_names = [n for n, p in model.named_parameters() if p.requires_grad]
        self.held_out_watch: HeldOutWatch | None = None
        super().__init__(model=model, **arguments)
        check_processes(self.accelerator)
        problem = problem_with_shares(self.model)
        if problem is not None:
            raise ModelError(f"Nothing was trained: {problem} (--launch {sharding() or 'ddp'}).")
        if sharding() is not None or (self.accelerator.num_processes > 1 and not self.calls_model):
            # Shares have their gradients summed where they are computed. For other passes through
            # parts of a model, DDP would keep a copy of all gradients.
            if self.calls_model and not casts(model):
                self.accelerator.prepare_model(self.model, evaluation_mode=True)  # its bfloat16
            self.model._is_accelerate_prepared = True
        use_packed_backbone(self.model)
        if tuning is not None and tuning.unfreezes_by is not None:
            self.add_callback(ProgressiveUnfreezing(self.model, tuning.unfreezes_by))

    @property
    def tokens_seen(self) -> int:
        """Tokens in all batches so far, prompts included; 0 for a trainer that does not count."""
        return int(getattr(self, "_total_train_tokens", 0))

    def run(self, stage: Stage, description: str, on_step: OnStep | None = None) -> None:
        """Train to the end, from the stage's last checkpoint if it has one."""
        self.stage = stage
        self.remove_callback(PrinterCallback)
        latest = stage.checkpoints.latest
        if latest is None:
            stage.metrics.rewind(0)  # of an attempt that was killed before its first checkpoint
        steps = self.planned_steps()
        # Trackers get what metrics.jsonl gets, as in every stage, figures after training included.
        for callback in get_reporting_integration_callbacks(self.args.report_to):
            self.remove_callback(callback)
        stage.until_end(tracking(stage, self.args.report_to, self.args.to_dict()))
        self.monitor = Monitor(stage, self.model, lambda: self.tokens_seen)
        with stage.bar(description, steps) as bar:
            self.add_callback(self.monitor)
            self.add_callback(
                _StageCallback(stage, bar, on_step, self.monitor, self.held_out_watch)
            )
            if latest is not None and self._had_stopped(latest):
                return
            self.train(resume_from_checkpoint=str(latest) if latest is not None else None)

    def training_step(self, *arguments: Any, **settings: Any) -> Any:
        """Add a batch's gradients; those of all processes, where a step follows."""
        loss = super().training_step(*arguments, **settings)
        self.refuse_no_number(loss)
        own_sums = sharding() is None and not self.calls_model
        if own_sums and self.accelerator.sync_gradients:
            trained = (p for p in self.model.parameters() if p.requires_grad)
            sum_gradients(trained, divisor=self.accelerator.num_processes)
        return loss

    def refuse_no_number(self, loss: Tensor) -> None:
        """Raise `ModelError` before a step by a loss that is not a number."""
        if not bool(loss.isfinite()):
            raise ModelError(
                f"The loss of step {self.state.global_step + 1} is not a number, and after a step "
                "by it no weight would be one. Lower training.learning_rate. In bfloat16, set "
                "training.bf16: false; where the model itself is kept in bfloat16 or float16, "
                "start from a copy of it in float32."
            )

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimiser, whose moments are shared out where the stage was asked to."""
        if self.optimizer is None:
            self.optimizer = sharded(super().create_optimizer(model))
            if isinstance(self.optimizer, ZeroOptimizer):
                zero, backward = self.optimizer, self.accelerator.backward
                self._zero = zero
                self.accelerator.backward = lambda loss, **how: backward(zero.prepared(loss), **how)
        return self.optimizer

    def _clip_grad_norm(self, model: Any) -> Any:
        if self._zero is not None:
            return self._zero.clip(self.args.max_grad_norm)
        return whole(super()._clip_grad_norm(model))

    def _had_stopped(self, checkpoint: Path) -> bool:
        """Restore a training that had stopped early at a checkpoint; return whether it had."""
        watch = self.stage.checkpoints.load().get("held_out")
        if watch is None or not watch["stopped"]:
            return False
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        return True

    def planned_steps(self) -> int:
        """Return how many optimiser steps the training will take."""
        plan = self.set_initial_training_values(self.args, self.get_train_dataloader())
        return int(plan[-1])

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.store_flos()
        rng_states = of_all_processes(rng_state())
        self.state.stateful_callbacks = {
            callback.__class__.__name__: callback.state()
            for callback in [*self.callback_handler.callbacks, self.control]
            if isinstance(callback, ExportableState)
        }
        tree = {
            "model": {n: held(p) for n, p in self.model.named_parameters() if p.requires_grad},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.lr_scheduler.state_dict(),
            "rng": rng_states[0],
            **({"rng_of_others": rng_states[1:]} if len(rng_states) > 1 else {}),
            "tokens": self.tokens_seen,
            "metrics": self.stage.metrics.position(),
            "warned": self.monitor.health.reported,
            "held_out": self.held_out_watch.state() if self.held_out_watch is not None else None,
            "more": self.more_state(),
        }
        self.stage.checkpoints.save(
            self.state.global_step,
            tree,
            also=lambda folder: self.state.save_to_json(str(folder / "trainer_state.json")),
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._tree = self.stage.checkpoints.load()
        if self.stage.writes:
            self.stage.metrics.rewind(self._tree["metrics"])
        if hasattr(self, "_total_train_tokens"):
            self._total_train_tokens = self._tree["tokens"]
        parameters = dict((model if model is not None else self.model).named_parameters())
        assign(parameters, self._tree["model"])
        self.monitor.health.reported = list(self._tree.get("warned", ()))
        if self.held_out_watch is not None:
            self.held_out_watch.restore(self._tree["held_out"])
        self.load_more_state(self._tree.get("more", {}))

    def more_state(self) -> dict[str, Any]:
        """Return what a trainer has beside weights that train, such as a reference that moves."""
        return {}

    def load_more_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `more_state` returned."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(self.optimizer, self._tree["optimizer"])
            self.lr_scheduler.load_state_dict(self._tree["scheduler"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            states = [self._tree["rng"], *self._tree.get("rng_of_others", ())]
            if self.args.process_index < len(states):  # else there were fewer processes before
                set_rng_state(states[self.args.process_index])


OnStep = Callable[[int], Mapping[str, float] | None]
"""Called after each optimiser step, and with 0 before the first; may return figures to log."""


class _StageCallback(TrainerCallback):  # type: ignore[misc]
    """Carries a trainer's progress and figures to the stage, and looks at held-out rows."""

    def __init__(
        self,
        stage: Stage,
        bar: Bar,
        on_step: OnStep | None,
        monitor: Monitor,
        held_out: HeldOutWatch | None,
    ) -> None:
        self._stage, self._bar, self._on_step = stage, bar, on_step
        self._monitor, self._held_out = monitor, held_out

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == 0:
            self._call_hook(0)
        self._bar.update(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._bar.update(state.global_step)
        self._call_hook(state.global_step)
        watch, step = self._held_out, state.global_step
        if watch is not None and watch.is_due(step, last=step >= state.max_steps):
            metrics = dict(watch.look(step))
            losses = [line["loss"] for line in state.log_history if "loss" in line]
            if losses:
                metrics["held_out_gap"] = metrics["held_out_loss"] - losses[-1]
            self._stage.metrics.log(step, metrics | self._monitor.warn(step, metrics))
            control.should_training_stop |= watch.stopped

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        metrics = {
            name: value
            for name, value in (logs or {}).items()
            if not any(part in name for part in _NOT_REPRODUCIBLE)
        }
        if "loss" in metrics:
            step = state.global_step
            metrics |= self._monitor.metrics()
            self._stage.metrics.log(step, metrics | self._monitor.warn(step, metrics))
            speed = self._monitor.speed()
            self._monitor.warn(step, speed)
            if self._stage.writes:
                self._stage.log_speed(step, speed)
            names = ("loss", "rewards/accuracies", "accuracy", "grad_norm", "tokens_per_second")
            shown = {name: value for name, value in (metrics | speed).items() if name in names}
            self._bar.update(step, shown)

    def _call_hook(self, step: int) -> None:
        metrics = self._on_step(step) if self._on_step is not None else None
        if metrics:
            self._stage.metrics.log(step, metrics)
