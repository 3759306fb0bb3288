"""Align one policy two ways, by DPO and by PPO, and show which did better.

From a base model through demonstrations, supervised fine-tuning, preference pairs and a reward
model to DPO and PPO side by side, each with several training seeds on the same data, and to a
report. Without files of your own it runs in the embedded world: a small shop's help desk, whose
gold utility says how good a response truly is.

    plumbline run dpo_vs_ppo --config quickstart
    plumbline run dpo_vs_ppo --config comparison --seeds 0-4
    plumbline run dpo_vs_ppo --config hh --set files.folder=/where/the/files/are

The steps up to the reward model, and PPO, are those of Ouyang et al. (2022); DPO is that of
Rafailov et al. (2023), on the same preferences.
"""

from __future__ import annotations

from typing import Any

from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.compare import compare_methods
from evaluation.comparison.costs import PriceConfig
from evaluation.evaluate import sample_and_measure
from plumbline.config import Seeds
from plumbline.runs.run import Run
from preference.config import DPOConfig
from preference.dpo import train_dpo
from recipes._shared import SharedConfig, shared_stages
from rl.config import PPOConfig
from rl.ppo import train_ppo


class DpoVsPpoConfig(SharedConfig):
    """Everything that may vary in this recipe."""

    seeds: Seeds = (0, 1, 2)
    """Training seeds of DPO and PPO, as a list or as 0-4; both methods run once with each."""
    dpo: DPOConfig = DPOConfig()
    """Direct preference optimisation."""
    ppo: PPOConfig = PPOConfig()
    """Proximal policy optimisation."""
    budget: BudgetConfig = BudgetConfig()
    """Where in their training the two are compared, in addition to its end."""
    prices: PriceConfig = PriceConfig()
    """What time and energy cost, for the page."""


CONFIG = DpoVsPpoConfig
ESSENTIAL = (
    "seeds", "data_seed", "base.name_or_path", "files.folder", "files.demonstrations",
    "files.preferences", "sft.training.learning_rate", "reward.training.learning_rate",
    "dpo.beta", "dpo.training.learning_rate", "ppo.iterations", "ppo.learning_rate",
    "ppo.kl.coefficient", "evaluation.prompts", "budget.by",
)  # fmt: skip


def main(run: Run, config: DpoVsPpoConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    # 1. Demonstrations, a base model, the SFT policy, preferences, a reward model, a judge.
    shared = shared_stages(run, config)

    methods = ("dpo", "ppo")
    run.plan(
        f"{kind}{method}/seed-{seed}"
        for seed in config.seeds
        for method in methods
        for kind in ("", "evaluation/")
    )

    # 2. Align two ways, with several training seeds each on the same data.
    aligned: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for seed in config.seeds:
        policies = {
            "dpo": run.make(
                f"dpo/seed-{seed}",
                train_dpo,
                config=config.dpo,
                policy=shared.sft_policy,
                preferences=shared.preferences,
                hook=shared.hook,
                seed=seed,
            ),
            "ppo": run.make(
                f"ppo/seed-{seed}",
                train_ppo,
                config=config.ppo,
                policy=shared.sft_policy,
                prompts=shared.rl_prompts,
                scorer=shared.scorer,
                hook=shared.hook,
                seed=seed,
            ),
        }
        for method, policy in policies.items():
            evaluation = sample_and_measure(
                run,
                f"{method}/seed-{seed}",
                policy=policy,
                reference=shared.sft_policy,
                harness=shared.harness,
            )
            aligned[method][str(seed)] = {"policy": policy, "evaluation": evaluation}

    # 3. Compare them: at a matched budget and at the end, paired by prompt, over seeds.
    report = run.make(
        "report",
        compare_methods,
        title="DPO against PPO",
        judge=shared.judge,
        baseline=shared.baseline,
        methods=aligned,
        stages=run.stages,
        budget=config.budget,
        confidence=config.evaluation.confidence,
        prices=config.prices,
        config=config,
    )
    return run.publish(report)
