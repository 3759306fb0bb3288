"""Press on a reward model until true quality falls, and see whether an ensemble holds out longer.

Reward models learn from few labels in the embedded world, whose gold utility tells how good an
answer truly is. PPO with hardly any KL penalty then optimises against one of them, or against all
as an ensemble; every policy is judged on its way, by its own reward and by gold. Best of n presses
on the same reward models without any training.

    plumbline run over_optimization --config overopt

The curves and their fit are those of Gao, Schulman and Hilton (2022); ensembles as in Coste et al.
(2023), where each single reward model, too, is one of the ensemble's members.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from evaluation.harness import Harness
from evaluation.over_optimization.best_of_n import answer_often
from evaluation.over_optimization.report import report_over_optimization
from plumbline.config import Config, Seeds
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import defer
from plumbline.runs.pool import Job, PoolConfig, make_all
from plumbline.runs.run import Run
from recipes._shared import SharedConfig, World, shared_stages
from reward.ensemble import COMBINATIONS, EnsembleScorer
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model
from rl.config import PPOConfig
from rl.ppo import train_ppo

ONE = "one reward model"


class BestOfConfig(Config):
    """Best of n, beside PPO."""

    answers: int = Field(64, ge=0)
    """Answers of the first policy to each prompt. Fewer than 2: best of n is left out."""
    prompts: int = Field(100, ge=2)
    """Held-out prompts that it answers so often."""


class OverOptimizationConfig(SharedConfig):
    """Everything that may vary in this recipe."""

    seeds: Seeds = Field((0, 1, 2), min_length=2)
    """Training seeds, as a list or as 0-2. Each has a reward model of its own, and an ensemble
    consists of them all."""
    ppo: PPOConfig = PPOConfig()
    """How each policy is trained."""
    ensembles: tuple[Annotated[str, COMBINATIONS], ...] = ("uncertainty",)
    """Ensembles whose courses are shown beside that of one reward model."""
    uncertainty_weight: float = Field(1.0, ge=0)
    """What a unit of variance between an ensemble's members costs (uncertainty)."""
    best_of: BestOfConfig = BestOfConfig()
    """Best of n on the same reward models."""
    pool: PoolConfig = PoolConfig()
    """Where policies are trained, and how many at once."""

    @model_validator(mode="after")
    def _gold_is_known(self) -> OverOptimizationConfig:
        if self.files is not None:
            raise ValueError(
                "over-optimisation is seen by a gold utility, which files do not have; leave files "
                "unset, so that the embedded world is used"
            )
        return self


CONFIG = OverOptimizationConfig


def main(run: Run, config: OverOptimizationConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    # 1. A first policy, few labels on pairs of its answers.
    shared = shared_stages(run, config)

    # 2. A reward model for each seed, all on the same labels.
    models = make_all(
        run,
        {
            f"reward/seed-{seed}": Job(
                train_reward_model,
                {
                    "config": config.reward,
                    "policy": shared.sft_policy,
                    "preferences": shared.preferences,
                    "seed": seed,
                },
            )
            for seed in config.seeds
        },
        config.pool,
    )
    alone = {seed: models[f"reward/seed-{seed}"] for seed in config.seeds}

    # 3. PPO against each of them, and against all of them as one, with hardly a KL penalty.
    #    Gold watches; it is never trained on.
    world = World(run, config)
    (gold,) = world.gold
    held_out = world.prompts("heldout", config.evaluation.prompts)
    ensembles = {how: ensemble(config, how, list(alone.values())) for how in config.ensembles}
    rewards: dict[str, dict[int, Any]] = {
        ONE: {seed: defer(RewardModelScorer, model=model) for seed, model in alone.items()},
        **{
            COMBINATIONS[how].title: dict.fromkeys(config.seeds, made)
            for how, made in ensembles.items()
        },
    }
    policies = make_all(
        run,
        {
            f"{way}/seed-{seed}": Job(
                train_ppo,
                {
                    "config": config.ppo,
                    "policy": shared.sft_policy,
                    "prompts": shared.rl_prompts,
                    "scorer": scorer,
                    "hook": defer(
                        Harness,
                        config=config.evaluation,
                        prompts=held_out,
                        scorers=[gold, scorer],
                        data_seed=config.data_seed,
                    ),
                    "seed": seed,
                },
            )
            for way, by_seed in rewards.items()
            for seed, scorer in by_seed.items()
        },
        config.pool,
    )

    # 4. Best of n: many answers of the first policy, ranked by the same rewards.
    answers, rankings = None, {}
    if config.best_of.answers > 1:
        columns: dict[str, dict[str, Any]] = {
            way: {f"{way}/seed-{seed}": scorer for seed, scorer in by_seed.items()}
            if way == ONE
            else {way: next(iter(by_seed.values()))}
            for way, by_seed in rewards.items()
        }
        answers = run.make(
            "best-of-n",
            answer_often,
            policy=shared.sft_policy,
            prompts=world.prompts("heldout", config.best_of.prompts),
            answers=config.best_of.answers,
            sampling=config.evaluation.sampling,
            scorers={"gold": gold} | {n: s for named in columns.values() for n, s in named.items()},
            data_seed=config.data_seed,
        )
        rankings = {way: {name: name for name in named} for way, named in columns.items()}

    # 5. Gold and proxy against the root of KL.
    report = run.make(
        "report",
        report_over_optimization,
        title="Over-optimisation of a reward model",
        ways={
            way: {str(seed): policies[f"{way}/seed-{seed}"] for seed in config.seeds}
            for way in rewards
        },
        proxies={way: "reward" if way == ONE else "ensemble" for way in rewards},
        reward_models={f"seed {seed}": model for seed, model in alone.items()},
        answers=answers,
        rankings=rankings,
    )
    summary = run.publish(report)
    return {way: {k: found[k] for k in ("fall", "fit")} for way, found in summary["ways"].items()}


def ensemble(config: OverOptimizationConfig, how: str, models: list[Artifact]) -> Any:
    """Return all reward models as one scorer, deferred."""
    weight = {"weight": config.uncertainty_weight} if COMBINATIONS[how].uses_weight else {}
    return defer(EnsembleScorer, models=models, how=how, **weight)
