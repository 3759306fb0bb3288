"""Training on pairs: a prompt is read once for both of its responses.

The loop is that of `transformers.Trainer`, with exact resume, in one process or several; the losses
are those of `reward.losses`. Shapes: ``B`` pairs.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from plumbline.lm.batches import pad_right_ids
from plumbline.lm.branches import Branches, branch_states, reads_branches
from plumbline.training.exact_resume import ExactResume
from plumbline.training.held_out import HeldOutConfig, HeldOutWatch
from reward.aspects import Aspects
from reward.config import EarlyStoppingConfig
from reward.losses import LOSSES, PairLabels, PairRewards, centering_penalty
from reward.pairs import ASPECT, RewardBatch, RewardExample, collate


class RewardTrainer(ExactResume):
    """Trains a sequence classifier on pairs.

    ``labels`` hold what is the same for all pairs; ``held_out`` are pairs on which an early stop
    decides.
    """

    def __init__(
        self,
        *,
        model: Any,
        loss: str,
        labels: PairLabels,
        center_rewards: float,
        pad_id: int,
        aspects: Aspects | None = None,
        aspect_weight: float = 1.0,
        checkpointing: bool = False,
        early_stopping: EarlyStoppingConfig | None = None,
        held_out: Sequence[RewardExample] = (),
        **arguments: Any,
    ) -> None:
        read_branches_in_forward(model, pad_id, checkpointing=checkpointing)
        super().__init__(model=model, data_collator=collate, **arguments)
        self.model_accepts_loss_kwargs = False  # our loss is a mean over the batch
        self._loss, self._labels, self._center = LOSSES[loss].function, labels, center_rewards
        self._aspects, self._aspect_weight = aspects, aspect_weight
        self._total_train_tokens = 0
        self._figures: dict[str, list[float]] = defaultdict(list)
        self._held_out = held_out
        if early_stopping is not None and early_stopping.patience is not None:
            watched = HeldOutConfig(
                every=early_stopping.every, keep="best", patience=early_stopping.patience
            )
            self.held_out_watch = HeldOutWatch(
                watched, self.held_out_figures, self.model, self.trained_names
            )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean of the losses over the pairs of a batch."""
        pairs: RewardBatch = inputs["pairs"]
        rewards, losses = self.losses(model(branches=pairs.branches), pairs)
        loss = losses.mean()
        self._note(pairs, rewards, loss)
        return (loss, rewards) if return_outputs else loss

    def losses(self, outputs: Tensor, pairs: RewardBatch) -> tuple[PairRewards, Tensor]:
        """Return the rewards and the losses of pairs, [B], of the model's outputs [2 B, K]."""
        device = outputs.device
        numbers: dict[str, Any] = {name: x.to(device) for name, x in pairs.numbers.items()}
        of_aspects = {n: numbers.pop(n) for n in list(numbers) if n.startswith(ASPECT)}
        labels = self._labels._replace(**numbers)
        weights = (1.0,) if self._aspects is None else self._aspects.weights
        rewards = pair_rewards(outputs, weights)
        losses = self._loss(rewards, labels)
        if of_aspects:
            targets = torch.stack(list(of_aspects.values()), dim=1)
            losses = losses + self._aspect_weight * aspect_losses(
                outputs, targets, lambda pair, p: self._loss(pair, labels._replace(probability=p))
            )
        if self._center:
            losses = losses + self._center * centering_penalty(rewards)
        return rewards, losses

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last line."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self._figures.items()}
            logs["num_tokens"] = float(self._total_train_tokens)
            self._figures.clear()
        super().log(logs, start_time)

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Return mean loss and accuracy of the held-out pairs."""
        losses, right = [], []
        self.model.eval()
        size = self.args.per_device_train_batch_size
        for start in range(0, len(self._held_out), size):
            pairs = collate(self._held_out[start : start + size])["pairs"]
            with self.accelerator.autocast():
                outputs = self.model(branches=pairs.branches)
            rewards, pair_losses = self.losses(outputs, pairs)
            losses.append(pair_losses)
            right.append((rewards.chosen > rewards.rejected).float())
        self.model.train()
        return {
            "held_out_loss": float(torch.cat(losses).mean()),
            "held_out_accuracy": float(torch.cat(right).mean()),
        }

    @torch.no_grad()
    def _note(self, pairs: RewardBatch, rewards: PairRewards, loss: Tensor) -> None:
        """Note metrics of a batch, of all processes."""
        margins = rewards.chosen - rewards.rejected
        both = torch.stack(rewards)
        own = torch.stack(
            [
                loss,
                both.min(),
                both.mean(),
                both.max(),
                (margins > 0).float().mean(),
                margins.mean(),
                margins.new_tensor(pairs.tokens_seen),
            ]
        ).double()
        gathered = self.accelerator.gather(own.unsqueeze(0))
        self._total_train_tokens += round(float(gathered[:, -1].sum()))
        mean = gathered.mean(0).tolist()
        mean[1], mean[3] = float(gathered[:, 1].min()), float(gathered[:, 3].max())
        names = ("min_reward", "mean_reward", "max_reward", "accuracy", "margin")
        for name, value in zip(names, mean[1:-1], strict=True):
            self._figures[name].append(value)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs  # ids are packed on the CPU, and moved then

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: transformers' count knows no shared prompts, and nothing reads it."""
        return 0


def pair_rewards(outputs: Tensor, weights: Sequence[float] = (1.0,)) -> PairRewards:
    """Return the rewards of pairs, of outputs [2 B, K]: chosen and rejected in turn.

    A reward is the sum of a response's outputs by their ``weights``.
    """
    sums = outputs[:, 0] if len(weights) == 1 else outputs @ outputs.new_tensor(weights)
    return PairRewards(*sums.view(-1, 2).unbind(1))


def aspect_losses(
    outputs: Tensor, targets: Tensor, loss: Callable[[PairRewards, Tensor], Tensor]
) -> Tensor:
    """Return each pair's mean loss over the aspects with a label, [B]; 0 where none has one.

    Of outputs [2 B, K], and the probability [B, K] that the chosen response is the better in each
    aspect, which is not a number where nobody said.
    """
    known = ~targets.isnan()
    total = torch.zeros_like(outputs[::2, 0])
    for place, (has_label, target) in enumerate(
        zip(known.unbind(1), targets.unbind(1), strict=True)
    ):
        pair = PairRewards(outputs[::2, place], outputs[1::2, place])
        losses = loss(pair, torch.where(has_label, target, 0.5))
        total = total + torch.where(has_label, losses, 0.0)
    return total / known.sum(1).clamp(min=1)


def read_branches_in_forward(model: Any, pad_id: int, *, checkpointing: bool = False) -> None:
    """Let a sequence classifier take ``branches``, and return the outputs of all responses.

    Its ``forward`` then does so, so that all that wraps it (DDP, autocast) sees an ordinary call.
    A model that cannot read a prompt once reads each response behind its own prompt, padded.
    """
    plain = model.forward

    @functools.wraps(plain)
    def forward(*inputs: Any, branches: Branches | None = None, **options: Any) -> Any:
        if branches is None:
            return plain(*inputs, **options)
        if not all(branches.flat) or not reads_branches(model):
            return _padded_outputs(plain, branches, pad_id, model.device)
        states = branch_states(model, branches, checkpointing=checkpointing)
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        with torch.autocast(states.device.type, enabled=False):  # few numbers, all that is kept
            *_, weight = whole.score.parameters()  # behind that of the base: the adapter's
            return whole.score(states.to(weight.dtype))

    model.forward = forward


def _padded_outputs(forward: Any, branches: Branches, pad_id: int, device: Any) -> Tensor:
    """Return a classifier's outputs of each response behind its own prompt."""
    texts = [
        [*prompt, *response]
        for prompt, several in zip(*branches, strict=True)
        for response in several
    ]
    ids, mask = (part.to(device) for part in pad_right_ids(texts, pad_id))
    outputs: Tensor = forward(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return outputs
