"""TRL's SFTTrainer with exact resume, weights of tokens, wrong answers, and a held-out loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import trl
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from plumbline.training.conflicts import without_conflicts
from plumbline.training.exact_resume import ExactResume
from plumbline.training.held_out import HeldOutConfig, HeldOutWatch
from plumbline.training.sharding import refuse_shares
from sft.answer_batches import (
    BATCH,
    COLUMNS,
    WithWrongAnswers,
    answer_logprobs,
    with_wrong_rows,
)
from sft.losses import WRONG_ANSWER_LOSSES, AnswerLogprobs, prefers_right
from sft.tasks import TASK, Tasks
from sft.tokenized import TOKEN_WEIGHTS


class HeldOut(NamedTuple):
    """How well a policy predicts demonstrations that it has not seen."""

    loss: float
    """Mean negative log-probability of a learnt token, in nats."""
    token_accuracy: float
    """Share of learnt tokens that the policy finds most likely."""
    answer_accuracy: float | None = None
    """Share of rows with wrong answers whose right one has the highest mean log-probability of a
    token; None where there are none."""

    def metrics(self) -> dict[str, float]:
        """Return those that there are, by their names in metrics.jsonl."""
        named = {f"held_out_{name}": value for name, value in self._asdict().items()}
        return {name: value for name, value in named.items() if value is not None}


class SFTTrainer(ExactResume, trl.SFTTrainer):  # type: ignore[misc]
    """TRL's trainer on rows with ``input_ids`` and ``labels``, and perhaps ``token_weights``.

    ``wrong_answer_losses`` are rows of `WRONG_ANSWER_LOSSES`, for rows with wrong answers.
    """

    data_collator: Any
    _signature_columns: Any

    def __init__(
        self,
        *,
        tasks: Tasks | None = None,
        wrong_answer_losses: Sequence[str] = (),
        **arguments: Any,
    ) -> None:
        self.tasks = tasks
        self.wrong_answer_losses = [WRONG_ANSWER_LOSSES[name] for name in wrong_answer_losses]
        if tasks is not None and tasks.config.gradients != "sum":
            refuse_shares(f"other_tasks.gradients: {tasks.config.gradients}")
        super().__init__(**arguments)
        self.data_collator = WithColumns(WithWrongAnswers(self.data_collator))
        if tasks is not None:
            self.add_callback(_StartOfTasks(self))

    def watch_held_out(self, config: HeldOutConfig) -> HeldOutWatch | None:
        """Look at held-out rows while the model trains, where the config says so."""
        if config.every is None:
            return None
        allows = self.tasks.allows if self.tasks is not None else None
        self.held_out_watch = HeldOutWatch(
            config, self.held_out_figures, self.model, self.trained_names, allows
        )
        return self.held_out_watch

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Compute gradients, and where the config says so those of each task by itself."""
        task = inputs.get(TASK)
        if self.tasks is None or self.tasks.config.gradients == "sum" or task is None:
            return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-any-return]
        model.train()
        inputs = self._prepare_inputs(inputs)
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients, total = [], torch.zeros((), device=self.args.device)
        for number in sorted(set(task.tolist())):
            rows = inputs[TASK] == number
            part = {name: value[rows] for name, value in inputs.items()}
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, part, num_items_in_batch=num_items_in_batch)
            gradients.append(
                _flat(torch.autograd.grad(loss, parameters, allow_unused=True), parameters)
            )
            total += loss.detach()
        self.refuse_no_number(total)
        order = self.tasks.order(self.state.global_step)
        _add_gradient(parameters, without_conflicts(gradients, order))
        return total

    def more_state(self) -> dict[str, Any]:
        """Return the state of the tasks."""
        return {} if self.tasks is None else {"tasks": self.tasks.state()}

    def load_more_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `more_state` returned."""
        if self.tasks is not None:
            self.tasks.restore(state["tasks"])

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.tasks is None:
            return super()._get_train_sampler(train_dataset)
        arguments = self.args
        return self.tasks.sampler(
            max_steps=arguments.max_steps,
            rows_per_step=arguments.per_device_train_batch_size
            * arguments.gradient_accumulation_steps,
        )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return TRL's loss, or with weights of tokens or wrong answers our own.

        TRL's own loss is the mean over learnt tokens; its metrics stay. Losses over wrong answers
        are means over rows, and are added to it.
        """
        inputs.pop(TASK, None)
        weights, wrong = inputs.pop(TOKEN_WEIGHTS, None), inputs.pop(BATCH, None)
        if weights is None and wrong is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels, rows = inputs["labels"], len(inputs["labels"])
        if weights is None:
            weights = (labels != -100).float()
        read = inputs if wrong is None else with_wrong_rows(inputs, wrong)
        outputs = model(**read, fused_lm_head=True, use_cache=False)
        count = (
            outputs.label_mask[:rows].sum() if num_items_in_batch is None else num_items_in_batch
        )
        self._total_train_tokens += int(read["attention_mask"].sum())
        loss = weighted_loss(outputs.log_probs[:rows], weights) / count
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        if wrong is not None:
            answers = answer_logprobs(outputs.log_probs, labels, wrong)
            of_rows = weights.gather(1, wrong["start"][:, None])[:, 0]
            # A sum over passes that make one step is the mean where transformers takes none.
            passes = 1 if num_items_in_batch is None else self.current_gradient_accumulation_steps
            loss = loss + self._wrong_answers(answers, of_rows) / passes
        return (loss, outputs) if return_outputs else loss

    def _wrong_answers(self, answers: AnswerLogprobs, weights: Tensor) -> Tensor:
        """Return the sum of the losses over wrong answers, each a mean over rows of weights [R]."""
        each = torch.stack([loss.function(answers) for loss in self.wrong_answer_losses]).sum(0)
        return (each * weights).mean()

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns = (TOKEN_WEIGHTS, TASK, *COLUMNS)
        more = [name for name in columns if name not in self._signature_columns]
        self._signature_columns = [*self._signature_columns, *more]

    def held_out_figures(self) -> dict[str, float]:
        """Return the held-out figures of the new task, and losses and drifts of the others."""
        held_out = self.held_out()
        metrics = held_out.metrics()
        if self.tasks is None:
            return metrics
        metrics |= self.losses_of_others()
        losses = [held_out.loss, *(metrics[f"held_out_loss/{n}"] for n in self.tasks.names)]
        self.tasks.weights.look(self.state.global_step, losses)
        return metrics | self.tasks.drifts(metrics)

    def losses_of_others(self) -> dict[str, float]:
        """Return the held-out loss of each other task."""
        assert self.tasks is not None
        return {
            f"held_out_loss/{name}": self.held_out(rows).loss
            for name, rows in zip(self.tasks.names, self.tasks.held_out, strict=True)
        }

    @torch.no_grad()
    def held_out(self, rows: Any = None) -> HeldOut:
        """Return means over all learnt tokens of held-out rows; None: those of the new task.

        `evaluate` takes the mean of each batch and then the mean over rows, which weighs the
        tokens of short answers more, and by as much as the batches are small.
        """
        was_training = self.model.training
        self.model.eval()
        total = torch.zeros((), device=self.args.device)
        tokens, right = torch.zeros_like(total), torch.zeros_like(total)
        preferred: list[bool] = []
        for batch in self._held_out_batches(self.eval_dataset if rows is None else rows):
            inputs = self._prepare_inputs(batch)
            wrong, count = inputs.pop(BATCH, None), len(inputs["labels"])
            read = inputs if wrong is None else with_wrong_rows(inputs, wrong)
            with self.compute_loss_context_manager():
                outputs = self.model(**read, use_cache=False, fused_lm_head=True)
            total -= outputs.log_probs[:count].sum()
            right += outputs.is_top1[:count].sum()
            tokens += outputs.label_mask[:count].sum()
            if wrong is not None:
                answers = answer_logprobs(outputs.log_probs, inputs["labels"], wrong)
                preferred += prefers_right(answers)[torch.unique(answers.row)].tolist()
        self.model.train(was_training)
        return HeldOut(
            float(total / tokens),
            float(right / tokens),
            sum(preferred) / len(preferred) if preferred else None,
        )

    def _held_out_batches(self, rows: Any) -> DataLoader[Any]:
        """Return all held-out rows, also where several processes share the training."""
        return DataLoader(
            rows.select_columns(
                [n for n in ("input_ids", "labels", *COLUMNS) if n in rows.column_names]
            ),
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.data_collator,
        )


def weighted_loss(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of - weight * log-probability over the tokens of a batch, in nats.

    Args:
        logprobs: [B, P] of each token but the first, given those before it; 0 where nothing is
            learnt. Virtual tokens may stand in front.
        weights: [B, T] of each token, T - 1 <= P.
    """
    own = weights[:, 1:]
    return -(logprobs[:, -own.shape[1] :] * own).sum()


class _StartOfTasks(TrainerCallback):  # type: ignore[misc]
    """Measures the other tasks before the first step."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the losses that are not to rise, and the weights that have them."""
        trainer, tasks = self._trainer, self._trainer.tasks
        if state.global_step or tasks is None:
            return
        losses = trainer.losses_of_others()
        tasks.start_losses = {name: losses[f"held_out_loss/{name}"] for name in tasks.names}
        trainer.stage.metrics.log(0, losses)
        if trainer.held_out_watch is not None:
            trainer.held_out_watch.start()


def _flat(gradients: Any, parameters: Any) -> Tensor:
    """Return gradients behind each other, [P]; 0 where a weight has none."""
    return torch.cat(
        [
            (torch.zeros_like(p) if gradient is None else gradient).reshape(-1).float()
            for gradient, p in zip(gradients, parameters, strict=True)
        ]
    )


def _add_gradient(parameters: Any, flat: Tensor) -> None:
    """Add a gradient [P] to those that the weights have."""
    place = 0
    for p in parameters:
        own = flat[place : place + p.numel()].view_as(p).to(p.dtype)
        p.grad = own.clone() if p.grad is None else p.grad + own
        place += p.numel()


class WithColumns:
    """A collator that also collates weights of tokens and tasks, where rows have them."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, examples: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Return a batch, with the weights as a tensor [B, T], 0 at padding."""
        batch: dict[str, Any] = self._collate(examples)
        if TOKEN_WEIGHTS in examples[0]:
            width = batch["input_ids"].shape[1]
            batch[TOKEN_WEIGHTS] = torch.tensor(
                [
                    [*example[TOKEN_WEIGHTS], *[0.0] * (width - len(example[TOKEN_WEIGHTS]))]
                    for example in examples
                ]
            )
        if TASK in examples[0]:
            batch[TASK] = torch.tensor([example[TASK] for example in examples])
        return batch
