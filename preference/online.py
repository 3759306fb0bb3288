"""DPO with a reward model in the loop: online, iterative, and training on the best of n.

A round samples responses of the policy as it is, lets a scorer rank them, makes pairs and learns
from those. Every random draw is derived from the seed and the round, so that a training that was
killed ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.data.records import Conversation
from plumbline.dropped import Dropped
from plumbline.hooks import EvaluationHook, Scorer
from plumbline.lm.branches import branch_logprobs
from plumbline.lm.precision import compute_precision
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import parameter_counts
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.processes import share_of
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive
from plumbline.training.figures import pooled
from plumbline.training.milestones import milestones
from plumbline.training.optimizers import OPTIMIZERS
from plumbline.training.processes import sum_gradients
from plumbline.training.prompt_rounds import fitting_prompts
from preference.batches import PairBatch, PairExample, collate_pairs
from preference.config import OnlineConfig
from preference.logprobs import pairs_of_sums, response_sums
from preference.losses import mixed_losses
from preference.reference import PolicyAndReference, restore, state_of
from preference.rounds import Round, sample_round
from preference.signs_of_trouble import Watch, pair_figures

_COUNTS = ("round", "steps", "tokens_sampled", "tokens_scored", "tokens_seen", "pairs")


@stage("policy", trains_in="several processes")
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
    roles = PolicyAndReference(policy.path, config.tuning, load_tokenizer(policy.path))
    if config.reference_every is not None:
        roles.start_moving()
    fitting = fitting_prompts(
        stage, roles.policy, [scorer], prompts,
        config.sampling.max_new_tokens, config.prompts_per_round, "online.prompts_per_round",
    )  # fmt: skip
    dropped = Dropped.read(stage.folder)
    learner = OnlineLearner(roles, config, seed)
    watch = Watch(config.watch, stage.say, has_reference=config.has_reference)
    evaluations = _Evaluations(stage, roles, hook, config, policy, watch)

    # 2. Resume from the last checkpoint.
    checkpoint = stage.checkpoints.load()
    stage.metrics.rewind(0 if checkpoint is None else checkpoint["metrics"])
    if checkpoint is not None:
        learner.load_state_dict(checkpoint["learner"])

    # 3. Rounds: sample, score, pair, learn.
    with stage.bar("preferences of its own responses", config.rounds) as bar:
        if learner.round == 0:
            evaluations.after(0)
        bar.update(learner.round)
        while learner.round < config.rounds:
            metrics = learner.learn(
                sample_round(
                    roles.policy, fitting, scorer, config, learner.round, seed, learner.unpaired
                )
            )
            stage.metrics.log(learner.round, metrics)
            watch.look_at_training(learner.round, metrics)
            evaluations.after(learner.round)
            if learner.round % config.checkpoint_every == 0:
                tree = {"learner": learner.state_dict(), "metrics": stage.metrics.position()}
                stage.checkpoints.save(learner.round, tree)
            bar.update(learner.round, {"score": metrics["score"]})

    # 4. Save the policy.
    dropped.rows += learner.unpaired.rows
    stage.report_dropped(dropped)
    evaluations.save(stage.folder, learner.round)
    return {**learner.totals(), **parameter_counts(roles.model)}


class _Evaluations:
    """Lets the hook judge the policy at evenly spaced rounds, and keeps the weights of each."""

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
        self._rounds = milestones(config.rounds, config.evaluations)

    def after(self, number: int) -> None:
        """Judge the policy after a round, where it is time to."""
        if number not in self._rounds:
            return
        stage, roles = self._stage, self._roles
        if self._keeps and number:
            self.save(stage.folder / "checkpoints" / f"step-{number}", number)
        metrics = self._hook(roles.policy, roles.start, number, stage.folder / "evaluations")
        self._watch.look_at_evaluation(number, metrics)
        stage.metrics.log(number, metrics)

    def save(self, folder: Path, number: int) -> None:
        """Save the policy as it is after a round, by the process that writes."""
        if not self._stage.writes:
            return
        title = "Policy aligned by preferences of a scorer between its own responses"
        card = model_card(title, f"After {number} rounds, from {self._source.id}.")
        roles = self._roles
        tokenizer = roles.policy.tokenizer
        save_model(roles.model, tokenizer, folder, source=self._source.path, card=card)


class OnlineLearner:
    """The policy in training: its optimiser, its reference, and what it has cost."""

    def __init__(self, roles: PolicyAndReference, config: OnlineConfig, seed: int) -> None:
        self.roles, self.config, self._seed = roles, config, seed
        self.round = self.steps = 0
        self.tokens_sampled = self.tokens_scored = self.tokens_seen = self.pairs = 0
        self.unpaired = Dropped()
        """Prompts of the rounds whose responses made no pair."""
        self._weights: dict[str, nn.Parameter] = {
            name: p for name, p in roles.model.named_parameters() if p.requires_grad
        }
        self._optimizer = OPTIMIZERS[config.optimizer].make(
            self._weights.values(), config.learning_rate
        )

    def learn(self, sampled: Round) -> dict[str, float]:
        """Learn from a round's pairs, then let the reference follow; return the figures."""
        config, learnt = self.config, _Means()
        left = 1 - self.round / config.rounds if config.schedule == "linear" else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * left
        for epoch in range(config.epochs):
            for examples in self._minibatches(sampled.examples, epoch):
                learnt.add(*self._step(examples))
        self.round += 1
        self.tokens_sampled += sampled.tokens_sampled
        self.tokens_scored += sampled.tokens_scored
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
        if own:
            metrics = self._add_gradients(collate_pairs(own)["pairs"], len(own) / len(examples))
        sum_gradients(self._weights.values())
        norm = nn.utils.clip_grad_norm_(self._weights.values(), self.config.max_grad_norm)
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
            torch.autograd.backward(loss if share == 1 else share * loss)
        return {"loss": loss.detach(), **pair_figures(weighed, config.beta)}

    def totals(self) -> dict[str, float]:
        """Return what the whole training came to."""
        config = self.config
        return {
            "rounds": float(self.round),
            "responses": float(self.round * config.prompts_per_round * config.responses),
            **{name: float(getattr(self, name)) for name in _COUNTS[1:]},
            "unpaired_prompts": float(len(self.unpaired.rows)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        return {
            "weights": self._weights,
            "optimizer": self._optimizer.state_dict(),
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "unpaired": self.unpaired.rows,
            **state_of(self.roles),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state["weights"].items():
            self._weights[name].data.copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
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
