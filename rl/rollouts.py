"""One round's experience, and what the roles' passes over it say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.hooks import Scorer
from plumbline.lm.batches import Batch, collate, pad_right
from plumbline.lm.logprobs import each_in_parts, in_parts
from plumbline.lm.policy import Policy
from plumbline.lm.sharding import gathered
from plumbline.runs.processes import share_of, tensors_of_all
from plumbline.training.processes import scores_of
from rl.config import PPOConfig
from rl.episodes import Episode
from rl.roles import Roles


class Rollout(NamedTuple):
    """What the learning of one round needs. Shapes as in `plumbline.lm.batches`."""

    batch: Batch
    mask: Tensor
    """[B, R] True at the tokens that are learnt from: the policy's, of responses not rejected."""
    logprobs: Tensor
    """[B, R] of the policy that learning starts from, at the sampling temperature."""
    importance_weights: Tensor
    """[B, R] 1 where that policy drew the tokens itself."""
    reference_logprobs: Tensor
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

    def without_weight(self) -> tuple[Rollout, Tensor, Tensor]:
        """Return one response that is not learnt from, and weights of 0, [1, R] twice."""
        part = self.rows(torch.tensor([0])).trimmed()
        weights = torch.zeros(part.mask.shape, device=part.mask.device)
        return part, weights, weights

    def trimmed(self) -> Rollout:
        """Return it without the columns that are padding in every row."""
        batch = self.batch.trimmed()
        width = batch.response_mask.shape[1]
        short = (tensor[:, :width] if tensor.dim() == 2 else tensor for tensor in self[1:])
        return Rollout(batch, *short)


def collate_episodes(episodes: Sequence[Episode], policy: Policy) -> tuple[Batch, Tensor]:
    """Return a round's responses, and the log-probabilities [B, R] that they were drawn with.

    The batch stays on the CPU, where its lengths are read; the rest is on the policy's device.
    """
    batch = collate(
        [episode.prompt_ids for episode in episodes],
        [episode.response_ids for episode in episodes],
        policy.pad_id,
        [episode.policy_mask for episode in episodes],
    )
    sampled = pad_right([e.logprobs for e in episodes], batch.response_mask.shape[1])
    return batch, sampled.to(policy.model.device)


def logprobs_of(role: Policy, batch: Batch, config: PPOConfig) -> Tensor:
    """Return the log-probability of each response token under a role, [B, R]."""
    temperature = config.sampling.temperature
    with gathered(role.model):
        return in_parts(
            lambda part: role.logprobs(part, temperature).logprobs,
            batch,
            config.micro_batch_size,
            role.model,
        )


class RoleReadings(NamedTuple):
    """What the roles say before anything is learnt, [B, R] each."""

    logprobs: Tensor
    """Of the policy that learning starts from."""
    reference_logprobs: Tensor
    values: Tensor


def read_by_roles(
    roles: Roles,
    episodes: Sequence[Episode],
    batch: Batch,
    sampled_logprobs: Tensor,
    config: PPOConfig,
    *,
    recompute: bool,
) -> RoleReadings:
    """Let the roles read a round's responses in as few passes as they allow.

    One pass for all on a GPU where they are adapters on one base. Where several processes share a
    training, each reads its share of the responses.
    """
    rows = share_of(len(episodes))
    share = _read_by_roles(
        roles, episodes[rows], batch.rows(rows), sampled_logprobs[rows], config, recompute=recompute
    )
    return RoleReadings(*tensors_of_all(share))


def _read_by_roles(
    roles: Roles,
    episodes: Sequence[Episode],
    batch: Batch,
    sampled_logprobs: Tensor,
    config: PPOConfig,
    *,
    recompute: bool,
) -> RoleReadings:
    """Return what the roles compute for some responses."""
    own_values = config.has_values and not roles.shares_trunk
    if roles.share_base and (own_values or not config.has_values):
        wanted = [recompute, True, own_values]

        def together(part: Batch) -> list[Tensor]:
            read = roles.read_by_adapters(
                part, config.sampling.temperature, policy=recompute, values=own_values
            )
            return [tensor for tensor in read if tensor is not None]

        readings = iter(each_in_parts(together, batch, config.micro_batch_size, roles.model))
        logprobs, reference, values = (next(readings) if want else None for want in wanted)
        assert reference is not None
        return RoleReadings(
            sampled_logprobs if logprobs is None else logprobs,
            reference,
            torch.zeros_like(sampled_logprobs) if values is None else values,
        )
    logprobs, values = _logprobs_and_values(
        roles, episodes, batch, sampled_logprobs, config, recompute=recompute
    )
    return RoleReadings(logprobs, logprobs_of(roles.reference, batch, config), values)


def _logprobs_and_values(
    roles: Roles,
    episodes: Sequence[Episode],
    batch: Batch,
    sampled_logprobs: Tensor,
    config: PPOConfig,
    *,
    recompute: bool,
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and values [B, R] that learning starts from, in as few passes.

    None where both were noted while the responses were drawn; one where policy and value model
    share a trunk.
    """
    size = config.micro_batch_size
    if recompute and roles.shares_trunk:

        def both(part: Batch) -> tuple[Tensor, Tensor]:
            tokens, values = roles.logprobs_and_values(part, config.sampling.temperature)
            return tokens.logprobs, values

        logprobs, values = each_in_parts(both, batch, size, roles.model)
        return logprobs, values
    logprobs = logprobs_of(roles.policy, batch, config) if recompute else sampled_logprobs
    noted = [episode.values for episode in episodes if episode.values is not None]
    if not config.has_values:
        values = torch.zeros_like(logprobs)
    elif roles.shares_trunk and len(noted) == len(episodes):
        values = pad_right(noted, logprobs.shape[1]).to(logprobs.device)
    else:
        with gathered(roles.value_model):
            values = in_parts(roles.values, batch, size, roles.model)
    return logprobs, values


def score_episodes(scorer: Scorer, episodes: Sequence[Episode]) -> list[float]:
    """Return the score of each episode's last turn, after all that was said before it.

    Where several processes share a training, each scores its share of the episodes.
    """
    turns = [episode.scored_turn for episode in episodes]
    return scores_of(scorer, [before for before, _ in turns], [response for _, response in turns])
