"""One round's experience: sample responses, score them, look at them with every role."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.batches import Batch, collate, pad_right
from plumbline.hooks import Scorer
from plumbline.logprobs import in_parts
from plumbline.records import Conversation
from rl.advantages import generalised_advantages, token_rewards
from rl.config import PPOConfig
from rl.kl import k1
from rl.roles import Roles


class Rollout(NamedTuple):
    """What the learning of one round needs. Shapes as in `plumbline.batches`."""

    batch: Batch
    logprobs: Tensor
    """[B, R] of the policy that sampled, at the sampling temperature."""
    values: Tensor
    """[B, R] before each token."""
    advantages: Tensor
    """[B, R] not yet whitened."""
    returns: Tensor
    """[B, R]."""
    kl: Tensor
    """[B] KL to the reference of each response, in nats."""
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
def collect(
    roles: Roles,
    scorer: Scorer,
    prompts: Sequence[Conversation],
    seeds: Sequence[int],
    config: PPOConfig,
    kl_coefficient: float,
) -> Rollout:
    """Answer prompts and judge every token of the answers."""
    # 1. Sample; the log-probabilities come with the tokens, before any filter.
    prompt_ids = [roles.policy.encode(prompt) for prompt in prompts]
    generations = roles.policy.sample(prompt_ids, seeds, config.sampling)
    batch = collate(prompt_ids, [g.ids for g in generations], roles.policy.pad_id)
    batch = batch.to(roles.model.device)
    width = batch.response_mask.shape[1]
    logprobs = pad_right([g.logprobs for g in generations], width).to(roles.model.device)
    finished = torch.tensor([g.finished for g in generations], device=roles.model.device)

    # 2. Look with the reference and the value model, a few responses at a time.
    temperature = config.sampling.temperature
    reference = in_parts(
        lambda part: roles.reference.logprobs(part, temperature).logprobs, batch, config.micro_batch
    )
    values = in_parts(roles.values, batch, config.micro_batch)

    # 3. Score the texts; what was cut off pays for it.
    texts = [roles.policy.decode(g.ids) for g in generations]
    scores = torch.tensor(scorer.score(prompts, texts), device=roles.model.device)
    rewards = scores.clamp(-config.reward_clip, config.reward_clip)
    rewards = rewards - config.missing_end_penalty * (~finished)

    # 4. Rewards and advantages, token by token.
    kl = k1(logprobs, reference).masked_fill(~batch.response_mask, 0.0)
    estimate = generalised_advantages(
        token_rewards(rewards, kl, batch.response_mask, kl_coefficient),
        values,
        batch.response_mask,
        config.gamma,
        config.lam,
    )
    return Rollout(batch, logprobs, values, *estimate, kl.sum(1), scores, finished)
