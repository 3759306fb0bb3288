"""DPO with a reward model in the loop: online, iterative, and training on the best of n.

A round samples responses of the policy as it is, lets a scorer rank them, makes pairs and learns
from those. Every random draw is derived from the seed and the round, so that a training that was
killed ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.data.records import Conversation
from plumbline.dropped import Dropped
from plumbline.hooks import EvaluationHook, Scorer
from plumbline.lm.branches import branch_logprobs
from plumbline.lm.precision import compute_precision, computes_in_bfloat16
from plumbline.lm.save import model_card, save_model
from plumbline.lm.sharding import copy_of, gathered, held
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import parameter_counts
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.processes import number_of_processes, sharding, share_of
from plumbline.runs.run import flat_settings
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive
from plumbline.training.figures import pooled
from plumbline.training.optimizers import OPTIMIZERS
from plumbline.training.processes import sum_gradients
from plumbline.training.prompt_rounds import fitting_prompts
from plumbline.training.sharding import (
    assign,
    check_optimizer,
    clip_gradients,
    left_to_sum,
    load_optimizer,
    prepared,
    sharded,
)
from plumbline.training.trackers import tracking
from preference.batches import PairBatch, PairExample, collate_pairs
from preference.budgets import EvaluationTimes, KLBudget, Progress, progress_of
from preference.config import OnlineConfig
from preference.logprobs import pairs_of_sums, response_sums
from preference.losses import mixed_losses
from preference.reference import PolicyAndReference, restore, state_of
from preference.rounds import Round, sample_round
from preference.signs_of_trouble import Watch, pair_figures

_COUNTS = (
    "round", "steps", "responses", "tokens_sampled", "tokens_scored", "tokens_seen", "pairs",
)  # fmt: skip


@stage("policy", trains_in="several processes", shares_weights=True)
@compute_precision("model", "cpu")  # before any thread starts: one flag of the whole process
def train_online(
    stage: Stage,
    *,
    config: OnlineConfig,
    policy: Artifact,
    prompts: Sequence[Conversation],
    scorer: Scorer,
    hook: EvaluationHook,
    seed: int,
) -> Mapping[str, float | None]:
    """Train a policy on pairs of its own responses that a scorer ranks."""
    silence_libraries()
    # 1. The policy and its reference; the prompts that it can answer.
    torch.manual_seed(seed)
    roles = _roles(policy, config)
    fitting = fitting_prompts(
        stage, roles.policy, [scorer], prompts,
        config.sampling.max_new_tokens, config.prompts_per_round, "online.prompts_per_round",
    )  # fmt: skip
    dropped = Dropped.read(stage.folder)
    engine = config.rollouts.make_engine(config.sampling)
    learner = OnlineLearner(roles, config, seed)
    budget = KLBudget(config, roles, stage.say)
    watch = Watch(config.watch, stage.say, has_reference=config.has_reference)
    evaluations = _Evaluations(stage, roles, hook, config, policy, watch)

    sample = partial(sample_round, engine, roles.policy, fitting, scorer, config)

    # 2. Rounds from the last checkpoint on: sample, score, pair, learn.
    _resume(stage, learner, budget, evaluations)
    total = learner.progress.total
    tracked = tracking(stage, config.report_to, flat_settings(config.identity()))
    with tracked, stage.bar("preferences of its own responses", total) as bar:
        if learner.round == 0:
            evaluations.after(0, learner.progress)
        bar.update(learner.progress.done)
        while learner.progress.done < total:
            sampled = sample(learner.round, seed, learner.unpaired, learner.tokens_left)
            metrics = _learn(stage, learner, budget, watch, sampled)
            if metrics is None:
                break
            if learner.progress.done >= total and config.max_kl is not None:
                # No round follows that would show where the last steps led.
                kl = budget.kl_of(sample(learner.round, seed, Dropped()))
                if budget.ends_training(learner, learner.round, kl):
                    break
            evaluations.after(learner.round, learner.progress)
            if learner.round % config.checkpoint_every == 0:
                _save_checkpoint(stage, learner, budget)
            bar.update(learner.progress.done, {"score": metrics["score"]})

    # 3. Save the policy.
    dropped.rows += learner.unpaired.rows
    stage.report_dropped(dropped)
    evaluations.save(stage.folder, learner.round)
    return {**learner.totals(), **parameter_counts(roles.model)}


def _roles(policy: Artifact, config: OnlineConfig) -> PolicyAndReference:
    """Return the policy with its reference."""
    check_optimizer(config.optimizer)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bfloat16 = computes_in_bfloat16(config.precision, device)
    tokenizer = load_tokenizer(policy.path)
    roles = PolicyAndReference(policy.path, config.tuning, tokenizer, bfloat16=bfloat16)
    if config.reference_every is not None:
        roles.start_moving()
    return roles


def _learn(
    stage: Stage, learner: OnlineLearner, budget: KLBudget, watch: Watch, sampled: Round
) -> dict[str, float] | None:
    """Learn from a round, and log it; None where the budget of KL ends the training before."""
    learner.count(sampled)
    kl = budget.kl_of(sampled)
    if budget.ends_training(learner, learner.round, kl):
        return None
    metrics = {**learner.learn(sampled), **({} if kl is None else {"kl": kl})}
    stage.metrics.log(learner.round, metrics)
    watch.look_at_training(learner.round, metrics)
    return metrics


def _save_checkpoint(stage: Stage, learner: OnlineLearner, budget: KLBudget) -> None:
    """Write the state after a round. Random draws are derived from the seed and the round."""
    state = {"learner": learner.state_dict(), "budget": budget.state_dict()}
    stage.checkpoints.save(learner.round, {**state, "metrics": stage.metrics.position()})


def _resume(
    stage: Stage, learner: OnlineLearner, budget: KLBudget, evaluations: _Evaluations
) -> None:
    """Restore the last checkpoint, if there is one."""
    checkpoint = stage.checkpoints.load()
    stage.metrics.rewind(0 if checkpoint is None else checkpoint["metrics"])
    if checkpoint is not None:
        learner.load_state_dict(checkpoint["learner"])
        budget.load_state_dict(checkpoint["budget"])
        evaluations.times.start_at(learner.progress)


class _Evaluations:
    """Lets the hook judge the policy at even distances, and keeps the weights of each time."""

    def __init__(
        self,
        stage: Stage,
        roles: PolicyAndReference,
        hook: EvaluationHook,
        config: OnlineConfig,
        source: Artifact,
        watch: Watch,
    ) -> None:
        self._stage, self._roles, self._hook, self._source = stage, roles, hook, source
        self._watch, self._keeps = watch, config.keep_checkpoints
        self.times = EvaluationTimes(config)

    def after(self, number: int, progress: Progress) -> None:
        """Judge the policy after a round, where it is time to."""
        if not self.times.is_due(number, progress):
            return
        stage, roles = self._stage, self._roles
        if self._keeps and number:
            self.save(stage.folder / "checkpoints" / f"step-{number}", number)
        with gathered(roles.model, roles.start.model):
            metrics = self._hook(roles.policy, roles.start, number, stage.folder / "evaluations")
        self._watch.look_at_evaluation(number, metrics)
        stage.metrics.log(number, metrics)

    def save(self, folder: Path, number: int) -> None:
        """Save the policy as it is after a round, by the process that writes."""
        title = "Policy aligned by preferences of a scorer between its own responses"
        card = model_card(title, f"After {number} rounds, from {self._source.id}.")
        roles = self._roles
        how: dict[str, Any] = {"source": self._source.path, "card": card}
        save_model(roles.model, roles.policy.tokenizer, folder, writes=self._stage.writes, **how)


class OnlineLearner:
    """The policy in training: its optimiser, its reference, and what it has cost."""

    def __init__(self, roles: PolicyAndReference, config: OnlineConfig, seed: int) -> None:
        self.roles, self.config, self._seed = roles, config, seed
        self.round = self.steps = self.responses = self.pairs = 0
        self.tokens_sampled = self.tokens_scored = self.tokens_seen = 0
        self.unpaired = Dropped()
        """Prompts of the rounds whose responses made no pair."""
        self._weights: dict[str, nn.Parameter] = {
            name: p for name, p in roles.model.named_parameters() if p.requires_grad
        }
        self._optimizer = sharded(
            OPTIMIZERS[config.optimizer].make(self._weights.values(), config.learning_rate)
        )

    @property
    def progress(self) -> Progress:
        """How much of the training is done."""
        return progress_of(self.config, self.round, self.tokens_sampled)

    @property
    def tokens_left(self) -> int | None:
        """Tokens that may still be sampled; None where nothing limits them."""
        most = self.config.max_sampled_tokens
        return None if most is None else most - self.tokens_sampled

    def count(self, sampled: Round) -> None:
        """Count what a round cost, whether it is learnt from or not."""
        self.responses += len(sampled.response_ids)
        self.tokens_sampled += sampled.tokens_sampled
        self.tokens_scored += sampled.tokens_scored

    def learn(self, sampled: Round) -> dict[str, float]:
        """Learn from a round's pairs, then let the reference follow; return the figures."""
        config, learnt = self.config, _Means()
        # The share that was done before this round.
        tokens_before = self.tokens_sampled - sampled.tokens_sampled
        left = 1.0
        if config.schedule == "linear":
            left -= progress_of(config, self.round, tokens_before).share
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * left
        for epoch in range(config.epochs):
            for examples in self._minibatches(sampled.examples, epoch):
                learnt.add(*self._step(examples))
        self.round += 1
        self.pairs += len(sampled.examples)
        if config.reference_every is not None and self.round % config.reference_every == 0:
            self.roles.update(1.0)
        return {**sampled.metrics, **learnt.means(), "tokens_sampled": float(self.tokens_sampled)}

    def _minibatches(self, examples: Sequence[PairExample], epoch: int) -> list[list[PairExample]]:
        """Return the pairs of each optimiser step, in an order of the epoch's own."""
        generator = torch.Generator().manual_seed(derive(self._seed, "order", self.round, epoch))
        order = torch.randperm(len(examples), generator=generator).tolist()
        size = self.config.minibatch_size
        return [
            [examples[row] for row in order[start : start + size]]
            for start in range(0, len(order), size)
        ]

    def _step(self, examples: Sequence[PairExample]) -> tuple[dict[str, Tensor], int]:
        """Take one optimiser step on some pairs; return figures, [] each, and of how many pairs.

        Where several processes share the training, each has the figures of its share of the pairs.
        """
        own = examples[share_of(len(examples))]
        metrics: dict[str, Tensor] = {}
        if own or sharding() is not None:  # then all make a pass, one without pairs for nothing
            read = collate_pairs(own or examples[:1])["pairs"]
            metrics = self._add_gradients(read, len(own) / len(examples))
        sum_gradients(left_to_sum(self._weights.values()))
        limit = self.config.max_grad_norm
        norm = clip_gradients(self._optimizer, self._weights.values(), limit)
        if bool(norm.isfinite()):
            self._optimizer.step()
            self.steps += 1
        self._optimizer.zero_grad(set_to_none=True)
        self.tokens_seen += collate_pairs(examples)["pairs"].tokens_seen
        metrics |= {"grad_norm": norm.detach(), "skipped": (~norm.isfinite()).float()}
        return metrics, len(own)

    def _add_gradients(self, pairs: PairBatch, share: float) -> dict[str, Tensor]:
        """Add the gradients of some pairs, ``share`` of all of a step; return figures, [] each."""
        config, policy = self.config, self.roles.policy
        tokens = pairs.tokens.to(policy.model.device)
        with compute_precision(config.precision, policy.model.device):
            token_logprobs = branch_logprobs(
                policy.model, pairs.branches, pad_id=policy.pad_id
            ).logprobs
            token_logprobs = token_logprobs.view(len(tokens), 2, -1)

            def seen(ld_alpha: float | None) -> Any:
                reference = (
                    self.roles.sums(pairs.branches, pairs.tokens, ld_alpha)
                    if config.has_reference
                    else None
                )
                return pairs_of_sums(
                    response_sums(token_logprobs, tokens, ld_alpha), reference, tokens
                )

            plain = seen(None)
            weighed = plain if config.ld_alpha is None else seen(config.ld_alpha)
            loss = mixed_losses(config.losses, plain, weighed, config.loss_settings).mean()
            if sharding() is not None:  # then gradients are means over the processes
                share *= number_of_processes()
            own = loss if share == 1 else share * loss
            torch.autograd.backward(prepared(own, self._optimizer))
        return {"loss": loss.detach(), **pair_figures(weighed, config.beta)}

    def totals(self) -> dict[str, float]:
        """Return what the whole training came to."""
        return {
            "rounds": float(self.round),
            **{name: float(getattr(self, name)) for name in _COUNTS[1:]},
            "unpaired_prompts": float(len(self.unpaired.rows)),
        }

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of the policy's weights, with its rounds and steps."""
        weights = {name: copy_of(weight) for name, weight in self._weights.items()}
        return {"weights": weights, "round": self.round, "steps": self.steps}

    def rollback(self, snapshot: dict[str, Any]) -> None:
        """Restore what `snapshot` returned; what it has cost stays."""
        assign(self._weights, snapshot["weights"])
        self.round, self.steps = int(snapshot["round"]), int(snapshot["steps"])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        return {
            "weights": {name: held(weight) for name, weight in self._weights.items()},
            "optimizer": self._optimizer.state_dict(),
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "unpaired": self.unpaired.rows,
            **state_of(self.roles),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        assign(self._weights, state["weights"])
        load_optimizer(self._optimizer, state["optimizer"])
        for name, count in state["counts"].items():
            setattr(self, name, count)
        self.unpaired = Dropped(state["unpaired"])
        restore(self.roles, state)


class _Means:
    """Means of figures over the steps of a round."""

    def __init__(self) -> None:
        self._steps: list[tuple[dict[str, Tensor], int]] = []

    def add(self, metrics: dict[str, Tensor], rows: int) -> None:
        """Add a step's means over so many rows."""
        self._steps.append((metrics, rows))

    def means(self) -> dict[str, float]:
        """Return means over the steps, each over the rows of all processes."""
        steps = [
            pooled([({name: float(number) for name, number in metrics.items()}, rows)])
            for metrics, rows in self._steps
        ]
        names = list(steps[0]) if steps else []
        return {name: float(torch.tensor([step[name] for step in steps]).mean()) for name in names}
