"""The trainer of `preference.kto`: batches of single responses, each liked or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbline.lm.branches import Branches, branch_logprobs
from plumbline.lm.policy import Policy
from plumbline.runs.processes import tensors_of_all
from preference.config import KTOConfig
from preference.labels import LabeledExample
from preference.logprobs import LossSettings
from preference.reference import PolicyAndReference
from preference.signs_of_trouble import label_figures
from preference.trainer import BranchTrainer
from preference.unpaired_losses import UNPAIRED_LOSSES, LabeledLogprobs


@dataclass(frozen=True)
class LabelBatch:
    """Responses that are read together. Shapes: ``B`` responses, ``K`` what is read of each."""

    branches: Branches
    mismatched: Branches | None
    """The same prompts, each with a response to another one, by which KTO estimates the KL."""
    all_responses: Branches
    """Each prompt with its response, and with the mismatched one where there is one."""
    desirable: Tensor
    """[B] True where the response was liked."""
    reference: Tensor | None
    """[B, K] log-probabilities under the reference, where they are known."""

    @property
    def tokens_seen(self) -> int:
        """Tokens of the prompts and their own responses."""
        return sum(map(len, self.branches.prompts)) + sum(map(len, self.branches.flat))


def collate_labeled(examples: Sequence[LabeledExample]) -> dict[str, LabelBatch]:
    """Return a batch, under the name by which the trainer finds it."""
    prompts = [example.prompt_ids for example in examples]
    others = [example.mismatched_ids for example in examples if example.mismatched_ids is not None]
    known = [example.reference for example in examples if example.reference is not None]
    return {
        "labelled": LabelBatch(
            Branches(prompts, [[example.response_ids] for example in examples]),
            Branches(prompts, [[ids] for ids in others]) if others else None,
            Branches(prompts, [example.responses for example in examples]),
            torch.tensor([example.desirable for example in examples]),
            torch.tensor(known) if len(known) == len(examples) else None,
        )
    }


class LabelTrainer(BranchTrainer):
    """Trains the policy of `PolicyAndReference` on labels without pairs."""

    config: KTOConfig

    def __init__(self, *, roles: PolicyAndReference, config: KTOConfig, **arguments: Any) -> None:
        super().__init__(roles=roles, config=config, **arguments)
        self.settings = LossSettings(
            beta=config.beta,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
        )
        self._mean_reward = torch.zeros(())

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean of the losses over the responses of a batch."""
        batch: LabelBatch = inputs["labelled"]
        row = UNPAIRED_LOSSES[self.config.loss]
        with self.accelerator.autocast():
            policy = _sums(self.roles.policy, batch.branches)
            with torch.no_grad():
                reference = self._reference(batch).to(policy)
                shift = self._shift(row.shift, batch, policy - reference[:, 0], reference)
        desirable = batch.desirable.to(policy.device)
        logprobs = LabeledLogprobs(policy, reference[:, 0], desirable, shift.to(policy))
        loss = row.function(logprobs, self.settings).mean()
        beta = self.settings.beta
        threshold = beta * logprobs.shift if row.shift == "kl" else logprobs.shift
        self._note(batch.tokens_seen, *label_figures(logprobs, beta, threshold))
        return (loss, logprobs) if return_outputs else loss

    def _reference(self, batch: LabelBatch) -> Tensor:
        """Return the log-probabilities under the reference, [B, K]."""
        if batch.reference is not None:
            return batch.reference
        tokens = batch.all_responses.tokens.view(len(batch.desirable), -1)
        return self.roles.sums(batch.all_responses, tokens, None)

    def _shift(self, kind: str, batch: LabelBatch, log_ratio: Tensor, reference: Tensor) -> Tensor:
        """Return what rewards are compared with, [], of log-ratios [B] and the reference [B, K]."""
        if kind == "kl":
            assert batch.mismatched is not None  # `with_mismatches` has seen to it
            policy = _sums(self.roles.policy, batch.mismatched)
            shares = tensors_of_all([policy - reference[:, 1]])
            return shares[0].mean().clamp(min=0)
        if kind == "mean":
            shares = tensors_of_all([log_ratio, batch.desirable])
            desirable = shares[1].to(log_ratio.device)
            rewards = self.settings.beta * shares[0]
            # Both sides count the same, however many of each there are.
            now = (_mean(rewards, desirable) + _mean(rewards, ~desirable)) / 2
            self._mean_reward = torch.lerp(
                now.float().cpu(), self._mean_reward, self.config.shift_decay
            )
            return self._mean_reward
        return torch.zeros(())

    def more_state(self) -> dict[str, Any]:
        """Return the running mean of rewards."""
        return {**super().more_state(), "mean_reward": self._mean_reward}

    def load_more_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `more_state` returned."""
        super().load_more_state(state)
        self._mean_reward = state["mean_reward"]


def _sums(role: Policy, branches: Branches) -> Tensor:
    """Return the log-probability of each response, [B]."""
    tokens = branch_logprobs(role.model, branches, role=role.adapter, pad_id=role.pad_id)
    return tokens.logprobs.sum(1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over a mask, []; 0 where it is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
