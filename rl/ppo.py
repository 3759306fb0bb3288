"""Proximal policy optimisation and its relatives: the algorithm, and nothing but its sequence.

Written on torch, accelerate and transformers, since TRL has had no PPO since September 2026. One
round: sample responses, score them, estimate advantages, then take a few passes of policy and value
steps over them. Where it departs from Ziegler et al. (2019), docs/ppo.md says so, detail by detail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from plumbline.data.records import Conversation
from plumbline.dropped import Dropped
from plumbline.errors import ConfigError, DataError, ModelError
from plumbline.hooks import EvaluationHook, Scorer
from plumbline.lm.precision import compute_precision
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tuning import parameter_counts
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.milestones import milestones
from rl.config import PPOConfig
from rl.engines import make_engine
from rl.episodes import Environment, stops
from rl.guards import Guard
from rl.learning import Learner, learn
from rl.reward_hacking import signs
from rl.roles import Roles
from rl.rollouts import divergence, judged
from rl.sampler import Upcoming
from rl.state import State, figures_of, keep, restore


@stage("policy")
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
) -> Mapping[str, float | None]:
    """Train a policy against a scorer; its own start is the reference.

    With an ``environment``, which answers the policy's turns, each episode is a dialogue. Scorers
    that are ``watched`` are shown beside the scorer that pays, and never trained on.
    """
    silence_libraries()
    from accelerate import Accelerator

    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise ModelError("PPO runs in one process for now; start it without accelerate launch.")

    # 1. The roles, and one optimiser for each of those that learn.
    torch.manual_seed(seed)
    roles = Roles(
        policy,
        config.tuning,
        config.value if config.has_values else None,
        follows=config.kl.reference_decay is not None,
    )
    scorer = roles.mount(scorer)
    if config.has_values and config.value.start == "reward":
        roles.start_values_from(scorer)
    learners = {"policy": Learner(roles.policy_parameters, config.learning_rate, config)}
    if config.has_values:
        learners["value"] = Learner(roles.value_parameters, config.value.learning_rate, config)
    if len({scorer.name for scorer in watched}) < len(watched):
        raise ConfigError("Two watched scorers have one name, under which each figure stands once.")
    if environment is not None and config.shaping.stop_at is not None:
        raise ConfigError("shaping.stop_at cuts turns, which an environment could not continue.")
    stops(roles.policy, config.shaping.stop_at)  # refused now rather than after the first round
    prompts = fitting_prompts(stage, roles, prompts, config)
    engine = make_engine(config.rollouts, config.sampling)
    upcoming = Upcoming(engine, roles.policy, prompts, config, seed, environment)
    if roles.shares_trunk:
        upcoming.note_values(roles.value_of)
    guard = Guard(config.guards, roles.policy, stage.folder / "traces", stage.say)
    judged_at = milestones(config.iterations, config.evaluations)

    # 2. Go on from where a killed attempt stopped.
    state = restore(stage, learners, roles) or State(kl_coefficient=config.kl.coefficient)
    guard.forget_after(state.iteration)

    def judge(iteration: int) -> None:
        if iteration not in judged_at:
            return
        if config.keep_checkpoints and iteration:
            save(roles, stage, f"checkpoints/step-{iteration}", policy, iteration)
        folder = stage.folder / "evaluations"
        stage.metrics.log(iteration, hook(roles.policy, roles.first, iteration, folder))

    # 3. Rounds of sampling and learning.
    with stage.bar("proximal policy optimisation", config.iterations) as bar:
        if state.iteration == 0:
            judge(0)
        bar.update(state.iteration)
        while state.iteration < config.iterations and not state.stopped:
            episodes = upcoming.take(state)
            with compute_precision(config.precision, roles.model.device):
                rollout = judged(
                    roles,
                    scorer,
                    episodes,
                    config,
                    state.kl_coefficient,
                    recompute=upcoming.recomputes,
                )
            drawn_after = state.iteration - min(state.iteration, config.rollouts.steps_behind)
            if state.is_beyond_budget(float(rollout.kl.mean()), config, drawn_after):
                state.go_back(roles, learners)
                stage.say(state.stopped)
                break
            state.remember(learners, config)
            upcoming.start(state)
            with compute_precision(config.precision, roles.model.device):
                losses = learn(
                    roles,
                    learners,
                    rollout,
                    config,
                    accelerator,
                    guard,
                    iteration=state.iteration,
                    kl_coefficient=state.kl_coefficient,
                    seed=seed,
                )
            if config.kl.reference_decay is not None:
                roles.follow(config.kl.reference_decay)
            figures = figures_of(rollout, episodes, watched, losses)
            state.advance(rollout, figures, config)
            upcoming.finish(state)
            shown = signs(state.history, config.guards)
            if not state.figures["steps"]:
                shown["nothing_learnt"] = (
                    "no step was taken: every response was rejected or skipped"
                )
            for name, sentence in shown.items():
                state.figures[f"sign/{name}"] = 1.0
                if state.is_new(name):
                    stage.say(f"[yellow]round {state.iteration}: {sentence}[/yellow]")
            stage.metrics.log(state.iteration, state.figures)
            if state.iteration == config.iterations and config.kl.budget is not None:
                # No round follows that would show where the last steps led.
                tried = upcoming.try_out(state)
                with compute_precision(config.precision, roles.model.device):
                    kl = divergence(roles, tried, config, recompute=upcoming.recomputes)
                if state.is_beyond_budget(float(kl.mean()), config, state.iteration):
                    state.go_back(roles, learners)
                    stage.say(state.stopped)
                    break
            judge(state.iteration)
            if state.iteration % config.checkpoint_every == 0:
                keep(stage, state, learners, roles)
            bar.update(state.iteration, {name: state.figures[name] for name in ("score", "kl")})

    # 4. Keep the policy. The value model has done its work.
    save(roles, stage, ".", policy, state.iteration)
    return {
        "score": state.figures.get("score"),
        "kl": state.figures.get("kl"),
        "kl_coefficient": state.kl_coefficient,
        "rounds": float(state.iteration),
        "responses": float(state.iteration * config.batch),
        "tokens_sampled": float(state.tokens_sampled),
        "tokens_seen": float(state.tokens_seen),
        "steps": float(state.steps),
        "signs": float(len(state.told)),
        **parameter_counts(roles.model),
    }


def save(roles: Roles, stage: Stage, place: str, policy: Artifact, iteration: int) -> None:
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
    needed = config.batch // config.group
    if len(kept) < needed:
        raise DataError(
            f"{len(kept)} of {len(prompts)} prompts fit, fewer than the {needed} of one round. "
            "Give more prompts, or lower ppo.batch or sampling.max_new_tokens."
        )
    return kept
