"""The trainer of `preference.kto`: batches of single responses, each liked or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbline.lm.branches import Branches, branch_logprobs
from plumbline.lm.policy import Policy
from plumbline.runs.processes import of_all_processes, tensors_of_all, this_process
from preference.config import KTOConfig
from preference.labels import LabeledExample
from preference.logprobs import LossSettings
from preference.reference import PolicyAndReference
from preference.trainer import BranchTrainer
from preference.unpaired_losses import UNPAIRED_LOSSES, LabeledLogprobs


@dataclass(frozen=True)
class LabelBatch:
    """Responses that are read together. Shapes: ``B`` responses."""

    branches: Branches
    desirable: Tensor
    """[B] True where the response was liked."""

    @property
    def mismatched(self) -> Branches:
        """The same prompts, each with the response to the next one: KTO estimates the KL by these.

        The next one of the last is the first, of the next process's share where there are several.
        """
        responses = list(self.branches.flat)
        firsts = of_all_processes(responses[0])
        after = [*responses[1:], firsts[(this_process() + 1) % len(firsts)]]
        return Branches(self.branches.prompts, [[response] for response in after])

    @property
    def tokens_seen(self) -> int:
        """Tokens of the prompts and their own responses."""
        return sum(map(len, self.branches.prompts)) + sum(map(len, self.branches.flat))


def collate_labeled(examples: Sequence[LabeledExample]) -> dict[str, LabelBatch]:
    """Return a batch, under the name by which the trainer finds it."""
    prompts = [example.prompt_ids for example in examples]
    responses = [example.response_ids for example in examples]
    return {
        "labelled": LabelBatch(
            Branches(prompts, [[response] for response in responses]),
            torch.tensor([example.desirable for example in examples]),
        )
    }


class LabelTrainer(BranchTrainer):
    """Trains the policy of `PolicyAndReference` on labels without pairs."""

    def __init__(self, *, roles: PolicyAndReference, config: KTOConfig, **arguments: Any) -> None:
        super().__init__(roles=roles, **arguments)
        self.config = config
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
                reference = _sums(self.roles.reference, batch.branches)
                shift = self._shift(row.shift, batch, policy - reference)
        desirable = batch.desirable.to(policy.device)
        logprobs = LabeledLogprobs(policy, reference, desirable, shift.to(policy))
        loss = row.function(logprobs, self.settings).mean()
        rewards = self.settings.beta * logprobs.log_ratio.detach()
        self._note(
            batch.tokens_seen,
            ({"rewards/chosen": _mean(rewards, desirable)}, desirable.sum()),
            ({"rewards/rejected": _mean(rewards, ~desirable)}, (~desirable).sum()),
            ({"shift": shift}, len(desirable)),
        )
        return (loss, logprobs) if return_outputs else loss

    def _shift(self, kind: str, batch: LabelBatch, log_ratio: Tensor) -> Tensor:
        """Return what rewards are compared with, []."""
        if kind == "kl":
            mismatched = batch.mismatched
            policy, reference = (
                _sums(role, mismatched) for role in (self.roles.policy, self.roles.reference)
            )
            shares = tensors_of_all([policy - reference])
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
