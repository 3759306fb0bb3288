"""One round's experience: sampled responses, scored and looked at by every role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.hooks import Scorer
from plumbline.lm.batches import Batch, collate, pad_right
from plumbline.lm.logprobs import each_in_parts, in_parts
from plumbline.lm.policy import Policy
from rl.advantages import (
    Advantages,
    generalized_advantages,
    group_centered,
    group_standardized,
    leave_one_out,
    returns_to_go,
    spread,
    token_rewards,
)
from rl.config import PPOConfig
from rl.episodes import Episode
from rl.kl import ESTIMATORS, k1
from rl.losses import truncated_weights
from rl.roles import Roles
from rl.shaping import shaped


class Rollout(NamedTuple):
    """What the learning of one round needs. Shapes as in `plumbline.lm.batches`."""

    batch: Batch
    mask: Tensor
    """[B, R] True at the tokens that are learnt from: the policy's, of responses not rejected."""
    logprobs: Tensor
    """[B, R] of the policy that learning starts from, at the sampling temperature."""
    correction: Tensor
    """[B, R] importance weights, 1 where that policy drew the tokens itself."""
    reference: Tensor
    """[B, R] log-probabilities of the reference."""
    values: Tensor
    """[B, R] before each token; 0 where there is no value model."""
    advantages: Tensor
    """[B, R] not yet whitened."""
    returns: Tensor
    """[B, R]."""
    kl: Tensor
    """[B] KL to the reference of each response, in nats, of the policy that drew it."""
    scores: Tensor
    """[B] of the scorer, as it gave them."""
    finished: Tensor
    """[B] True where the response came to an end."""

    def rows(self, index: Tensor) -> Rollout:
        """Return some of the responses."""
        return Rollout(self.batch.rows(index), *(tensor[index] for tensor in self[1:]))

    def trimmed(self) -> Rollout:
        """Return it without the columns that are padding in every row."""
        batch = self.batch.trimmed()
        width = batch.response_mask.shape[1]
        short = (tensor[:, :width] if tensor.dim() == 2 else tensor for tensor in self[1:])
        return Rollout(batch, *short)


@torch.no_grad()
def judged(
    roles: Roles,
    scorer: Scorer,
    episodes: Sequence[Episode],
    config: PPOConfig,
    kl_coefficient: float,
    *,
    recompute: bool,
) -> Rollout:
    """Let every role look at a round's responses; estimate advantages.

    ``recompute``: whoever drew the responses had other weights, or other arithmetic, than the
    policy that will learn.
    """
    # 1. Responses as tensors. What drew a token also said how likely it was.
    batch, drawn = _tensors(roles, episodes)
    own = batch.response_mask
    finished = torch.tensor([e.finished for e in episodes], device=own.device)

    # 2. What policy, value model and reference say of them.
    logprobs, values = _said(roles, episodes, batch, drawn, config, recompute=recompute)
    reference = _logprobs(roles.reference, batch, config)

    # 3. Score the texts.
    asked = [episode.judged for episode in episodes]
    scores = torch.tensor(
        scorer.score([prompt for prompt, _ in asked], [response for _, response in asked]),
        dtype=torch.float32,
        device=own.device,
    )
    rewards = shaped(scores, finished, config.shaping)

    # 4. Rewards token by token, with the KL penalty where it is paid there; advantages.
    penalty = ESTIMATORS[config.kl_estimator](logprobs, reference).masked_fill(~own, 0.0)
    per_token = token_rewards(rewards, penalty, own, 0.0 if config.kl_in_loss else kl_coefficient)
    estimate = advantages_of(per_token, values, own, config)
    kept = finished if config.shaping.unfinished == "reject" else torch.ones_like(finished)
    correction = truncated_weights(logprobs, drawn, config.loss.off_policy_cap)
    return Rollout(
        batch,
        own & kept.unsqueeze(1),
        logprobs,
        correction,
        reference,
        values,
        *estimate,
        # Of the policy that drew them, which one step behind is not the one that will learn.
        _of_responses(drawn if config.rollouts.steps_behind else logprobs, reference, own),
        scores,
        finished,
    )


@torch.no_grad()
def divergence(
    roles: Roles, episodes: Sequence[Episode], config: PPOConfig, *, recompute: bool
) -> Tensor:
    """Return the KL to the reference of each response that the policy drew, [B], in nats."""
    batch, drawn = _tensors(roles, episodes)
    logprobs = _logprobs(roles.policy, batch, config) if recompute else drawn
    return _of_responses(logprobs, _logprobs(roles.reference, batch, config), batch.response_mask)


def _of_responses(logprobs: Tensor, reference: Tensor, own: Tensor) -> Tensor:
    return k1(logprobs, reference).masked_fill(~own, 0.0).sum(1)


def _tensors(roles: Roles, episodes: Sequence[Episode]) -> tuple[Batch, Tensor]:
    """Return a round's responses, and the log-probabilities [B, R] that came with them."""
    batch = collate(
        [episode.prompt_ids for episode in episodes],
        [episode.ids for episode in episodes],
        roles.policy.pad_id,
        [episode.own for episode in episodes],
    ).to(roles.model.device)
    drawn = pad_right([e.logprobs for e in episodes], batch.response_mask.shape[1])
    return batch, drawn.to(batch.ids.device)


def _logprobs(role: Policy, batch: Batch, config: PPOConfig) -> Tensor:
    """Return what one role says of them, [B, R]."""
    temperature = config.sampling.temperature
    return in_parts(
        lambda part: role.logprobs(part, temperature).logprobs, batch, config.micro_batch
    )


def _said(
    roles: Roles,
    episodes: Sequence[Episode],
    batch: Batch,
    drawn: Tensor,
    config: PPOConfig,
    *,
    recompute: bool,
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and values [B, R], with as few passes as they take.

    None where both were noted while the responses were drawn; one where policy and value model
    share a trunk.
    """
    size = config.micro_batch
    if recompute and roles.shares_trunk:

        def both(part: Batch) -> tuple[Tensor, Tensor]:
            said, values = roles.logprobs_and_values(part, config.sampling.temperature)
            return said.logprobs, values

        logprobs, values = each_in_parts(both, batch, size)
        return logprobs, values
    logprobs = _logprobs(roles.policy, batch, config) if recompute else drawn
    noted = [episode.values for episode in episodes if episode.values is not None]
    if not config.has_values:
        values = torch.zeros_like(logprobs)
    elif roles.shares_trunk and len(noted) == len(episodes):
        values = pad_right(noted, logprobs.shape[1]).to(logprobs.device)
    else:
        values = in_parts(roles.values, batch, size)
    return logprobs, values


def advantages_of(rewards: Tensor, values: Tensor, mask: Tensor, config: PPOConfig) -> Advantages:
    """Return the advantages [B, R] that the config asks for, of rewards [B, R]."""
    how = config.advantage
    if how.estimator == "gae":
        return generalized_advantages(rewards, values, mask, how.gamma, how.lam)
    nothing = torch.zeros_like(rewards)
    if how.estimator == "reinforce_pp":
        return Advantages(returns_to_go(rewards, mask, how.gamma), nothing)
    of_responses = rewards.sum(1)
    if how.estimator == "rloo":
        better = leave_one_out(of_responses, config.group)
    elif how.estimator == "grpo":
        better = group_standardized(of_responses, config.group)
    else:
        better = group_centered(of_responses, config.group)
    return Advantages(spread(better, mask), nothing)
