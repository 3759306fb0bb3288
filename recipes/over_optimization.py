"""Optimize hard against a reward model until true quality falls; compare one with an ensemble.

Reward models learn from few labels in the embedded world, whose gold utility measures the true
quality of a response. PPO with almost no KL penalty then optimizes against one of them, or against
all as an ensemble; every policy is evaluated during training by its own reward and by gold. Best of
n optimizes against the same reward models without any training.

    plumbline run over_optimization --config overopt

The curves and their fit are those of Gao, Schulman and Hilton (2022); ensembles are those of Coste
et al. (2023), where each single reward model is also a member of the ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from evaluation.harness import Harness
from evaluation.over_optimization.best_of_n import sample_many_responses
from evaluation.over_optimization.report import report_over_optimization
from plumbline.config import Config, Seeds, only_when
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import Deferred, defer
from plumbline.runs.pool import Job, PoolConfig, make_all
from plumbline.runs.run import Run
from recipes._shared import SharedConfig, SharedStages, World, shared_stages
from reward.ensemble import COMBINATIONS, EnsembleScorer
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model
from rl.config import PPOConfig
from rl.ppo import train_ppo

ONE = "one reward model"
#: reward -> training seed -> scorer, deferred
Rewards = Mapping[str, Mapping[int, Deferred[Any]]]


class BestOfConfig(Config):
    """Best of n, beside PPO."""

    renamed: ClassVar[Mapping[str, str]] = {"answers": "responses"}

    responses: int = Field(64, ge=0)
    """Responses of the SFT policy to each prompt. Fewer than 2: best of n is left out."""
    prompts: int = only_when(lambda config: config.responses > 1, "responses: 2 or more", 100, ge=2)
    """Held-out prompts that it responds to."""


class OverOptimizationConfig(SharedConfig):
    """All settings of this recipe."""

    seeds: Seeds = Field((0, 1, 2), min_length=2)
    """Training seeds, as a list or as 0-2. Each has a reward model of its own; an ensemble
    consists of all of them."""
    ppo: PPOConfig = PPOConfig()
    """How each policy is trained."""
    ensembles: tuple[Annotated[str, COMBINATIONS], ...] = ("uncertainty",)
    """Ensembles that are compared with one reward model."""
    uncertainty_weight: float = only_when(
        lambda config: any(COMBINATIONS[how].uses_weight for how in config.ensembles),
        "'uncertainty' or a function of your own among ensembles",
        1.0,
        ge=0,
    )
    """Penalty per unit of variance between the members of an ensemble (uncertainty)."""
    best_of: BestOfConfig = BestOfConfig()
    """Best of n on the same reward models."""
    pool: PoolConfig = PoolConfig()
    """Where policies are trained, and how many at once."""

    @model_validator(mode="after")
    def _gold_is_known(self) -> OverOptimizationConfig:
        if self.files is not None:
            raise ValueError(
                "over-optimization shows in the gold utility, which files do not have; leave files "
                "out, so that the embedded world is used"
            )
        return self


CONFIG = OverOptimizationConfig
ESSENTIAL = (
    "seed", "data_seed", "labeling.votes", "pairs.prompts", "ensembles", "uncertainty_weight",
    "best_of.responses", "best_of.prompts", "ppo.iterations", "ppo.batch_size",
    "ppo.learning_rate", "evaluation.prompts", "pool.kind", "pool.workers", "pool.threads",
)  # fmt: skip


def main(run: Run, config: OverOptimizationConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. An SFT policy, and few labels on pairs of its responses.
    shared = shared_stages(run, config)

    # 2. A reward model for each seed, all on the same labels; each is a reward, and so is every
    #    ensemble of all of them.
    models = train_reward_models(run, config, shared)
    rewards: dict[str, dict[int, Deferred[Any]]] = {
        ONE: {seed: defer(RewardModelScorer, model=model) for seed, model in models.items()}
    }
    for how in config.ensembles:
        rewards[COMBINATIONS[how].title] = dict.fromkeys(
            config.seeds, ensemble(config, how, list(models.values()))
        )

    # 3. PPO against each reward, with almost no KL penalty. Gold is measured, never trained on.
    policies = train_policies(run, config, shared, rewards)

    # 4. Best of n: many responses of the SFT policy, ranked by the same rewards.
    responses, rankings = rank_best_of_n(run, config, shared, rewards)

    # 5. Gold and proxy against the root of KL.
    report = run.make(
        "report",
        report_over_optimization,
        title="Over-optimization of a reward model",
        policies={
            reward: {str(seed): policies[f"{reward}/seed-{seed}"] for seed in config.seeds}
            for reward in rewards
        },
        proxies={reward: "reward" if reward == ONE else "ensemble" for reward in rewards},
        reward_models={f"seed {seed}": model for seed, model in models.items()},
        responses=responses,
        rankings=rankings,
    )
    summary = run.publish(report)
    return {
        reward: {key: results[key] for key in ("drop", "fit")}
        for reward, results in summary["rewards"].items()
    }


def train_reward_models(
    run: Run, config: OverOptimizationConfig, shared: SharedStages
) -> dict[int, Artifact]:
    """Train one reward model per seed, all on the same labels."""
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
    return {seed: models[f"reward/seed-{seed}"] for seed in config.seeds}


def train_policies(
    run: Run, config: OverOptimizationConfig, shared: SharedStages, rewards: Rewards
) -> dict[str, Artifact]:
    """Train one policy per reward and seed; return them by stage name."""
    world = World(run, config)
    prompts = world.prompts("heldout", config.evaluation.prompts)

    def job(scorer: Deferred[Any], seed: int) -> Job:
        hook = defer(
            Harness,
            config=config.evaluation,
            prompts=prompts,
            scorers=[*world.gold, scorer],
            data_seed=config.data_seed,
        )
        arguments = {
            "config": config.ppo,
            "policy": shared.sft_policy,
            "prompts": shared.rl_prompts,
            "scorer": scorer,
            "hook": hook,
            "seed": seed,
        }
        return Job(train_ppo, arguments)

    return make_all(
        run,
        {
            f"{reward}/seed-{seed}": job(scorer, seed)
            for reward, by_seed in rewards.items()
            for seed, scorer in by_seed.items()
        },
        config.pool,
    )


def rank_best_of_n(
    run: Run, config: OverOptimizationConfig, shared: SharedStages, rewards: Rewards
) -> tuple[Artifact | None, dict[str, dict[str, str]]]:
    """Return many responses with scores, and the columns by which each reward ranks them."""
    if config.best_of.responses < 2:
        return None, {}
    world = World(run, config)
    (gold,) = world.gold
    scorers: dict[str, dict[str, Deferred[Any]]] = {
        reward: {f"{reward}/seed-{seed}": scorer for seed, scorer in by_seed.items()}
        if reward == ONE
        else {reward: next(iter(by_seed.values()))}
        for reward, by_seed in rewards.items()
    }
    responses = run.make(
        "best-of-n",
        sample_many_responses,
        policy=shared.sft_policy,
        prompts=world.prompts("heldout", config.best_of.prompts),
        responses=config.best_of.responses,
        sampling=config.evaluation.sampling,
        scorers={"gold": gold} | {n: s for named in scorers.values() for n, s in named.items()},
        data_seed=config.data_seed,
    )
    return responses, {r: {name: name for name in named} for r, named in scorers.items()}


def ensemble(
    config: OverOptimizationConfig, how: str, models: list[Artifact]
) -> Deferred[EnsembleScorer]:
    """Return all reward models as one scorer, deferred."""
    weight = {"weight": config.uncertainty_weight} if COMBINATIONS[how].uses_weight else {}
    return defer(EnsembleScorer, models=models, how=how, **weight)
