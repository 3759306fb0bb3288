"""Proximal policy optimisation: the algorithm, and nothing but its sequence.

Written on torch, accelerate and transformers, since TRL has had no PPO since September 2026. One
round: sample responses, score them, estimate advantages, then take a few passes of clipped policy
and value steps over them. Where it departs from Ziegler et al. (2019): policy and value are
separate models (adapters on one base, where they are adapters), and rewards come calibrated from
the scorer, so they are clipped and not whitened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch

from plumbline.artefacts import Artefact
from plumbline.errors import DataError, ModelError
from plumbline.hooks import EvaluationHook, Scorer
from plumbline.models import model_card, parameter_counts, save_model
from plumbline.quiet import hush
from plumbline.records import Conversation, Dropped
from plumbline.schedule import milestones
from plumbline.seeds import derive, rng
from plumbline.stages import Stage, stage
from rl.config import PPOConfig
from rl.kl import adapted
from rl.learning import Learner, learn
from rl.roles import Roles
from rl.rollouts import Rollout, collect


@stage("policy")
def train_ppo(
    stage: Stage,
    *,
    config: PPOConfig,
    policy: Artefact,
    prompts: Sequence[Conversation],
    scorer: Scorer,
    hook: EvaluationHook,
    seed: int,
) -> Mapping[str, float | None]:
    """Train a policy against a scorer; its own start is the reference."""
    hush()
    from accelerate import Accelerator

    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise ModelError("PPO runs in one process for now; start it without accelerate launch.")

    # 1. The roles, and one optimiser for each of the two that learn.
    torch.manual_seed(seed)
    roles = Roles(policy, config.tuning)
    learners = (
        Learner(roles.policy_parameters, config.learning_rate, config),
        Learner(roles.value_parameters, config.value_learning_rate, config),
    )
    prompts = fitting_prompts(stage, roles, prompts, config)
    judged = milestones(config.iterations, config.evaluations)

    # 2. Go on from where a killed attempt stopped.
    state = restore(stage, learners) or State(kl_coefficient=config.kl.coefficient)

    def judge(iteration: int) -> None:
        if iteration not in judged:
            return
        if config.keep_checkpoints and iteration:
            save(roles, stage, f"checkpoints/step-{iteration}", policy, iteration)
        folder = stage.folder / "evaluations"
        stage.metrics.log(iteration, hook(roles.policy, roles.reference, iteration, folder))

    # 3. Rounds of sampling and learning.
    with stage.bar("proximal policy optimisation", config.iterations) as bar:
        if state.iteration == 0:
            judge(0)
        bar.update(state.iteration)
        while state.iteration < config.iterations:
            iteration = state.iteration
            asked = prompts_of_round(prompts, config.batch, iteration, seed)
            seeds = [derive(seed, "rollout", iteration, n) for n in range(config.batch)]
            rollout = collect(roles, scorer, asked, seeds, config, state.kl_coefficient)
            losses = learn(roles, learners, rollout, config, accelerator, iteration, seed)
            state.advance(rollout, losses, config)
            stage.metrics.log(state.iteration, state.figures)
            judge(state.iteration)
            if state.iteration % config.checkpoint_every == 0:
                keep(stage, state, learners)
            bar.update(state.iteration, {name: state.figures[name] for name in ("score", "kl")})

    # 4. Keep the policy. The value model has done its work.
    save(roles, stage, ".", policy, config.iterations)
    return {
        "score": state.figures["score"],
        "kl": state.figures["kl"],
        "kl_coefficient": state.kl_coefficient,
        "responses": float(config.iterations * config.batch),
        "tokens_sampled": float(state.tokens_sampled),
        "tokens_seen": float(state.tokens_seen),
        "steps": float(config.iterations * config.epochs * (config.batch // config.minibatch)),
        **parameter_counts(roles.model),
    }


@dataclass
class State:
    """Where the training is; with the learners' weights, all that a checkpoint needs."""

    kl_coefficient: float
    iteration: int = 0
    tokens_sampled: int = 0
    tokens_seen: int = 0
    """Tokens that passed through a model in training steps, prompts included."""
    figures: dict[str, float] = field(default_factory=dict)
    """Of the last round."""

    def advance(self, rollout: Rollout, losses: Mapping[str, float], config: PPOConfig) -> None:
        """Take note of a finished round, and adapt the KL penalty."""
        kl = float(rollout.kl.mean())
        lengths = rollout.batch.response_mask.sum(1).float()
        self.figures = {
            "score": float(rollout.scores.mean()),
            "score_deviation": float(rollout.scores.std()),
            "kl": kl,
            "kl_coefficient": self.kl_coefficient,
            "tokens": float(lengths.mean()),
            "finished": float(rollout.finished.float().mean()),
            **losses,
        }
        if config.kl.target is not None:
            self.kl_coefficient = adapted(
                self.kl_coefficient, kl, config.kl.target, config.batch, config.kl.horizon
            )
        self.tokens_sampled += int(lengths.sum())
        self.tokens_seen += 2 * config.epochs * int(rollout.batch.attention_mask.sum())
        self.iteration += 1


def keep(stage: Stage, state: State, learners: tuple[Learner, Learner]) -> None:
    """Write a checkpoint.

    Every random draw is derived from the seed and the round, so no generator's state is in it.
    """
    tree = {
        "state": asdict(state),
        "learners": [learner.state() for learner in learners],
        "metrics": stage.metrics.position(),
    }
    stage.checkpoints.save(state.iteration, tree)


def restore(stage: Stage, learners: tuple[Learner, Learner]) -> State | None:
    """Take up the last checkpoint, or return None where there is none."""
    tree = stage.checkpoints.load()
    if tree is None:
        stage.metrics.rewind(0)
        return None
    for learner, state in zip(learners, tree["learners"], strict=True):
        learner.restore(state)
    stage.metrics.rewind(tree["metrics"])
    return State(**tree["state"])


def save(roles: Roles, stage: Stage, place: str, policy: Artefact, iteration: int) -> None:
    """Save the policy as it is."""
    card = model_card(
        "Policy aligned by proximal policy optimisation",
        f"After {iteration} rounds, from {policy.id}.",
    )
    folder = stage.folder / place
    save_model(roles.model, roles.tokenizer, folder, source=policy.path, card=card)


def fitting_prompts(
    stage: Stage, roles: Roles, prompts: Sequence[Conversation], config: PPOConfig
) -> list[Conversation]:
    """Return the prompts that leave room for a response in the model's context."""
    context = getattr(roles.model.config.get_text_config(), "max_position_embeddings", None)
    if context is None:
        return list(prompts)
    room = context - config.sampling.max_new_tokens
    kept, dropped = [], Dropped()
    for number, prompt in enumerate(prompts, 1):
        if len(roles.policy.encode(prompt)) <= room:
            kept.append(prompt)
        else:
            dropped.add("prompts", number, f"is longer than {room} tokens", prompt)
    stage.report_dropped(dropped)
    if len(kept) < config.batch:
        raise DataError(
            f"{len(kept)} of {len(prompts)} prompts fit, fewer than one round's batch of "
            f"{config.batch}. Give more prompts, or lower ppo.batch or sampling.max_new_tokens."
        )
    return kept


def prompts_of_round(
    prompts: Sequence[Conversation], batch: int, iteration: int, seed: int
) -> list[Conversation]:
    """Return the prompts of one round: passes over all of them, each in an order of its own."""
    per_pass = len(prompts) // batch
    number, place = divmod(iteration, per_pass)
    order = rng(seed, "prompts", number).sample(range(len(prompts)), len(prompts))
    return [prompts[row] for row in order[place * batch : (place + 1) * batch]]
