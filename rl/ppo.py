"""Proximal policy optimisation and its relatives: the whole algorithm, from top to bottom.

Where it departs from Schulman et al. (2017) and Ziegler et al. (2019), see docs/ppo.md, too:

1. The value model has weights of its own, by default an adapter and a head that starts at 0.
2. An episode ends with its end token, which gets the score; one that was cut pays a penalty.
3. Advantages are whitened over the round; both losses are means over the policy's own tokens.
4. The coefficient of the KL penalty stays as it is unless ``kl.target`` is set.
5. A guard sees each minibatch before its step: a step that would wreck the policy is not taken.

A relative replaces the estimator of advantages, the policy's loss, what it is averaged over, or the
estimator of KL, by another row of its table. Shapes: ``B`` responses, ``R`` positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.data.records import Conversation
from plumbline.hooks import EvaluationHook, Scorer
from plumbline.lm.logprobs import TokenLogprobs
from plumbline.lm.precision import compute_precision
from plumbline.lm.tuning import parameter_counts
from plumbline.masked import masked_mean, masked_var, masked_whiten
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.processes import check_processes
from plumbline.runs.run import flat_settings
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive
from plumbline.training.trackers import tracking
from rl.advantages import token_rewards
from rl.budget import KLBudget
from rl.checkpoints import Evaluations, Stateful, restore_checkpoint, save_checkpoint, save_policy
from rl.config import PPOConfig
from rl.environments import Environment
from rl.episodes import Episode
from rl.guards import Guard
from rl.kl import KL_ESTIMATORS, next_kl_coefficient, response_kl
from rl.losses import (
    POLICY_LOSSES,
    REDUCTIONS,
    clipped_value_loss,
    token_mean,
    truncated_weights,
)
from rl.metrics import RoundLog, RunningMeans
from rl.micro_batches import MicroBatches
from rl.roles import Roles, make_roles
from rl.rollouts import Rollout, collate_episodes, read_by_roles, score_episodes
from rl.sampler import make_sampler
from rl.shaping import MISSING_EOS, shape_rewards
from rl.state import TrainingState


class Term(NamedTuple):
    """A term of a micro-batch's loss, and what it shows."""

    loss: Tensor
    """[] weighed over the minibatch."""
    metrics: dict[str, Tensor]
    """[B, R] each, without gradient."""


@stage("policy", trains_in="several processes", shares_weights=True)
@compute_precision("model", "cpu")  # before any thread starts: one flag of the whole process
def train_ppo(
    stage: Stage,
    *,
    config: PPOConfig,
    policy: Artifact,
    prompts: Sequence[Conversation],
    scorer: Scorer,
    hook: EvaluationHook,
    seed: int,
    environment: Environment | None = None,
    watched: Sequence[Scorer] = (),
    reference: Artifact | None = None,
) -> Mapping[str, float | None]:
    """Train a policy against a scorer. Without a ``reference``, its own start is that.

    With an ``environment``, which answers the policy's turns, each episode is a dialogue. Scorers
    that are ``watched`` are logged but do not contribute to the reward.
    """
    silence_libraries()
    # 1. Policy, reference, value model and scorer; what samples; what watches.
    torch.manual_seed(seed)
    roles, scorer = make_roles(policy, config, scorer, reference)
    guard = Guard(config.guards, roles.policy, stage.folder / "traces", stage.say)
    ppo = PPO(roles, config, guard, seed)
    sampler = make_sampler(stage, roles, [scorer, *watched], prompts, config, seed, environment)
    budget = KLBudget(config, stage.say)
    log = RoundLog(stage, config.guards, watched, kl_is_noisy=sampler.kl_is_noisy)
    evaluations = Evaluations(stage, roles, hook, config, policy)

    # 2. Resume from the last checkpoint.
    parts: dict[str, Stateful] = {"ppo": ppo, "sampler": sampler, "budget": budget, "log": log}
    restore_checkpoint(stage, parts)
    guard.drop_traces_after(ppo.iteration)

    # 3. Rounds: sample responses, score them, estimate advantages, and learn from them.
    tracked = tracking(stage, config.report_to, flat_settings(config.identity()))
    with tracked, stage.bar("proximal policy optimisation", config.iterations) as bar:
        if ppo.iteration == 0:
            evaluations.after(0)
        bar.update(ppo.iteration)
        while ppo.iteration < config.iterations:
            episodes = sampler.next(ppo.iteration)
            rollout = ppo.build_rollout(episodes, scorer, recompute=sampler.recomputes_logprobs)
            if budget.ends_training(ppo, rollout.kl):
                break
            with sampler.drawing_ahead(ppo.iteration):
                metrics = ppo.round(rollout)
            log.record(ppo.iteration, rollout, episodes, metrics, scorer)
            if ppo.iteration == config.iterations and budget.max_kl is not None:
                # No round follows that would show where the last steps led.
                episodes = sampler.sample_current(ppo.iteration)
                kl = ppo.kl_of(episodes, recompute=sampler.recomputes_logprobs)
                if budget.ends_training(ppo, kl, staleness=0):
                    break
            evaluations.after(ppo.iteration)
            if ppo.iteration % config.checkpoint_every == 0:
                save_checkpoint(stage, ppo.iteration, parts)
            bar.update(ppo.iteration, {name: log.metrics[name] for name in ("score", "kl")})

    # 4. Save the policy. The value model has done its work.
    save_policy(stage, ".", roles, policy, ppo.iteration)
    return {**log.totals(), **ppo.totals(), **parameter_counts(roles.model)}


class PPO(TrainingState):
    """Policy, reference and value model in training: their optimisers, a guard, the settings."""

    def __init__(self, roles: Roles, config: PPOConfig, guard: Guard, seed: int) -> None:
        from accelerate import Accelerator

        super().__init__(roles, config)
        check_processes(Accelerator())
        self.guard, self.seed = guard, seed
        self.micro_batches = MicroBatches(roles, config, self.learners.values())

    @torch.no_grad()
    def build_rollout(
        self, episodes: Sequence[Episode], scorer: Scorer, *, recompute: bool = False
    ) -> Rollout:
        """Score a round's responses, let every role read them, and estimate advantages.

        ``recompute``: log-probabilities are not those of the policy that will learn; do it again.
        """
        with self.reading():
            roles, config = self.roles, self.config
            # 1. Responses as tensors, with the log-probabilities that they were drawn with.
            batch, sampled_logprobs = collate_episodes(episodes, roles.policy)
            device = roles.model.device
            mask = batch.response_mask.to(device)
            finished = torch.tensor([episode.finished for episode in episodes], device=device)

            # 2. Log-probabilities and values that learning starts from; those of the reference.
            logprobs, reference_logprobs, values = read_by_roles(
                roles, episodes, batch, sampled_logprobs, config, recompute=recompute
            )

            # 3. The reward of each response: its score, clipped, less a penalty if it was cut.
            scores = torch.tensor(
                score_episodes(scorer, episodes), dtype=torch.float32, device=device
            )
            shaping, missing_eos = config.shaping, MISSING_EOS[config.shaping.missing_eos]
            rewards = shape_rewards(scores, whiten=shaping.whiten, clip=shaping.clip)
            rewards = missing_eos.rewards(rewards, finished, shaping.missing_eos_penalty)

            # 4. The reward of each token: minus beta KL, unless the loss has that penalty; plus the
            # response's reward at its last token.
            kl = KL_ESTIMATORS[config.kl_estimator].function(logprobs, reference_logprobs)
            beta = 0.0 if config.kl_in_loss else self.kl_coefficient
            per_token = token_rewards(rewards, kl.masked_fill(~mask, 0.0), mask, beta)

            # 5. Advantages and returns. gae: delta_t = r_t + gamma V_t+1 - V_t, and
            # A_t = delta_t + gamma lambda A_t+1. A response that was cut may leave the loss.
            estimate = config.estimator(per_token, values, mask, config.estimator_settings)
            kept = finished if missing_eos.rejects else torch.ones_like(finished)

            # KL is that of the policy that drew the responses, which may be a stale one.
            drawn_with = sampled_logprobs if config.rollouts.max_staleness else logprobs
            cap = config.rollouts.max_importance_weight
            return Rollout(
                batch=batch,
                mask=mask & kept.unsqueeze(1),
                logprobs=logprobs,
                importance_weights=truncated_weights(logprobs, sampled_logprobs, cap),
                reference_logprobs=reference_logprobs,
                values=values,
                advantages=estimate.advantages,
                returns=estimate.returns,
                kl=response_kl(drawn_with, reference_logprobs, mask),
                scores=scores,
                finished=finished,
            )

    def round(self, rollout: Rollout) -> dict[str, float]:
        """Learn from one rollout, then move the reference and the KL coefficient."""
        config, kl_coefficient = self.config, self.kl_coefficient
        metrics = self.update(rollout)
        if config.kl.reference_decay is not None:
            self.roles.update_reference(config.kl.reference_decay)
        if config.kl.target is not None:
            self.kl_coefficient = next_kl_coefficient(
                kl_coefficient,
                float(rollout.kl.mean()),
                config.kl.target,
                config.batch_size,
                config.kl.horizon,
            )
        passes = 2 if config.has_values and config.value.trunk == "own" else 1
        self.tokens_sampled += int(rollout.batch.response_mask.sum())
        self.tokens_scored += int(rollout.batch.attention_mask.sum())
        self.tokens_seen += passes * config.ppo_epochs * int(rollout.batch.attention_mask.sum())
        self.steps += int(metrics["steps"])
        self.iteration += 1
        return {"kl_coefficient": kl_coefficient, **metrics}

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Take ``ppo_epochs`` passes over a rollout, with one step for each minibatch."""
        with self.precision():
            config, mask, metrics = self.config, rollout.mask, RunningMeans()
            if int(mask.sum()) < 2:
                return {"skipped": 1.0, "steps": 0.0}  # every response was rejected
            if config.advantage.whitens:
                rollout = rollout._replace(advantages=masked_whiten(rollout.advantages, mask))
            for learner in self.learners.values():
                learner.set_learning_rate(self.iteration)
            steps = 0
            learnt_from = mask.any(1).cpu()
            for epoch in range(config.ppo_epochs):
                for rows in self._minibatches(epoch):
                    if not bool(learnt_from[rows].any()):
                        continue  # all rejected; a step would follow the optimiser's momentum alone
                    loss, log_ratio = self.accumulate_gradients(rollout.rows(rows), metrics)
                    taken = self._step(rollout, rows, loss, log_ratio, metrics)
                    metrics.add("skipped", float(not taken))
                    steps += taken
            if config.has_values:
                variance = masked_var(rollout.returns, mask)
                unexplained = masked_var(rollout.returns - rollout.values, mask)
                metrics.add("explained_variance", 1 - unexplained / (variance + 1e-8))
            return metrics.means() | {"steps": float(steps)}

    def _minibatches(self, epoch: int) -> Sequence[Tensor]:
        """Return the rows of each minibatch, in an order of the epoch's own."""
        config = self.config
        generator = torch.Generator().manual_seed(derive(self.seed, "order", self.iteration, epoch))
        order = torch.randperm(config.batch_size, generator=generator)
        return torch.split(order, config.minibatch_size)

    def accumulate_gradients(
        self, minibatch: Rollout, metrics: RunningMeans
    ) -> tuple[Tensor, Tensor]:
        """Add a minibatch's gradients, a micro-batch at a time.

        Each token's weight in the loss is settled for the whole minibatch before it is cut, so the
        cut changes nothing, nor do several processes. Returns the loss [], and log-ratios [B, R].
        """
        config, mask, noted = self.config, minibatch.mask, len(metrics)
        weights = REDUCTIONS[config.reduction].weights(mask, config.sampling.max_new_tokens)
        value_weights = token_mean(mask)

        def add_gradients(parts: Sequence[Tensor], missing: int) -> tuple[Tensor, Tensor]:
            log_ratio = torch.zeros(mask.shape, device=mask.device)
            total = torch.zeros((), dtype=torch.float64, device=mask.device)
            for rows in parts:
                part = minibatch.rows(rows).trimmed()
                columns = slice(part.mask.shape[1])
                terms, log_ratio[rows, columns] = self._backward(
                    part, weights[rows, columns], value_weights[rows, columns]
                )
                total += terms[0].loss.detach()
                share = value_weights[rows, columns].sum()  # of the minibatch's tokens
                for name, tensor in (pair for term in terms for pair in term.metrics.items()):
                    metrics.add(name, masked_mean(tensor.float(), part.mask), share)
            for _ in range(missing):  # passes that other processes make more
                self._backward(*minibatch.without_weight())
            return total, log_ratio

        def undo() -> None:
            metrics.cut(noted)
            self.zero_grad()

        loss, log_ratio = self.micro_batches.run(minibatch.batch.lengths, add_gradients, undo)
        metrics.add("policy_loss", loss)
        return loss, log_ratio

    def _backward(
        self, part: Rollout, weights: Tensor, value_weights: Tensor
    ) -> tuple[list[Term], Tensor]:
        """Add the gradients of a micro-batch: from one pass where both models allow, or from two.

        Returns the policy's term, the value model's if there is one, and the log-ratio [B, R].
        """
        config, roles = self.config, self.roles
        temperature, entropy_gradient = config.sampling.temperature, config.loss.entropy > 0
        together = roles.reads_together and "policy" in self.trainable
        if roles.shares_trunk or together:
            new, values = roles.logprobs_and_values(
                part.batch, temperature, entropy_gradient=entropy_gradient
            )
            policy, log_ratio = self._policy_term(new, part, weights)
            value = self._value_term(values, part, value_weights)
            # Weights of its own need no weight beside the policy's loss.
            coefficient = 1.0 if together else config.value.coefficient
            self.backward(policy.loss + coefficient * value.loss, "policy", "value")
            return [policy, value], log_ratio
        with torch.set_grad_enabled("policy" in self.trainable):
            new = roles.policy.logprobs(part.batch, temperature, entropy_gradient=entropy_gradient)
        policy, log_ratio = self._policy_term(new, part, weights)
        if "policy" in self.trainable:
            self.backward(policy.loss, "policy")  # before the next pass, which needs the memory
        if not config.has_values:
            return [policy], log_ratio
        value = self._value_term(roles.values(part.batch), part, value_weights)
        self.backward(value.loss, "value")
        return [policy, value], log_ratio

    def _policy_term(
        self, new: TokenLogprobs, part: Rollout, weights: Tensor
    ) -> tuple[Term, Tensor]:
        """Return the surrogate, plus the KL penalty of the loss, less the entropy bonus."""
        config, old_logprobs = self.config, part.logprobs
        log_ratio = (new.logprobs - old_logprobs).detach()
        ratio = log_ratio.exp()
        # clip: -min(ratio A, clip(ratio, 1 - low, 1 + high) A)
        policy_loss = POLICY_LOSSES[config.loss.kind](
            new.logprobs, old_logprobs, part.advantages, part.mask, config.loss.clip
        )
        per_token = policy_loss.loss * part.importance_weights
        if config.kl_in_loss:
            kl = KL_ESTIMATORS[config.kl_estimator].function(new.logprobs, part.reference_logprobs)
            per_token = per_token + self.kl_coefficient * kl
        if config.loss.entropy > 0:
            per_token = per_token - config.loss.entropy * new.entropy
        loss = (per_token.masked_fill(~part.mask, 0.0) * weights).sum()
        metrics = {
            "ratio": policy_loss.ratio.detach(),
            "clip_fraction": policy_loss.clipped,
            "approx_kl": ratio - 1 - log_ratio,  # k3: KL(old || new), never negative
            "entropy": new.entropy.detach(),
        }
        return Term(loss, metrics), log_ratio

    def _value_term(self, values: Tensor, part: Rollout, weights: Tensor) -> Term:
        """Return the squared error of the values, or of the clipped ones where that is larger."""
        # 0.5 max((V - return)^2, (V_old + clip(V - V_old, -c, c) - return)^2)
        value = clipped_value_loss(values, part.values, part.returns, self.config.value.clip)
        loss = (value.loss.masked_fill(~part.mask, 0.0) * weights).sum()
        metrics = {"value_loss": value.loss.detach(), "value_clip_fraction": value.clipped}
        return Term(loss, metrics)

    def _step(
        self,
        rollout: Rollout,
        rows: Tensor,
        loss: Tensor,
        log_ratio: Tensor,
        metrics: RunningMeans,
    ) -> bool:
        """Clip the gradients and take one optimiser step; return False where the guard forbids it.

        The guard sees, before each step, what the steps before it did. In a round of one step there
        are none, so the guard sees that step afterwards, and it can be undone.
        """
        config, guard, trainable = self.config, self.guard, self.trainable
        norms = {name: learner.clip_gradients() for name, learner in trainable.items()}
        numbers = {"loss": loss, **{f"{name} gradient": norm for name, norm in norms.items()}}
        if guard.blocks_step(rollout, log_ratio, numbers, rows, self.iteration):
            self.zero_grad()
            return False
        single = config.ppo_epochs * (config.batch_size // config.minibatch_size) == 1
        restore = self.copy_of_trainable() if single and guard.limits_change else None
        for name, learner in self.learners.items():
            if name in trainable:
                learner.step()
                metrics.add(f"{name}_grad_norm", norms[name])
            else:
                learner.zero_grad()
        if restore is not None:
            some = rows[: config.micro_batch_size]
            log_ratio = self._log_ratio(rollout.rows(some))
            if guard.blocks_step(rollout, log_ratio, {}, some, self.iteration):
                restore()
                return False
        return True

    @torch.no_grad()
    def _log_ratio(self, part: Rollout) -> Tensor:
        """Return how far each log-probability of some responses has moved, [B, R]."""
        new = self.roles.policy.logprobs(part.batch, self.config.sampling.temperature)
        return new.logprobs - part.logprobs
