"""Align one policy by preferences, offline and with the reward model in the loop, and by PPO.

Offline DPO learns from the labelled pairs. Iterative DPO, online DPO and training on the best of n
sample the policy's own responses, which the reward model ranks; PPO is rewarded by the same model.
All methods that sample draw the same number of responses of the same length limit, from the same
prompts, and score each once. All are judged by the same harness on the same held-out prompts.

    plumbline run preference_family --config family
    plumbline run preference_family --config family --seeds 0-4

The papers are named in docs/rooms/preference.md.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.compare import compare_methods
from evaluation.comparison.costs import PriceConfig
from evaluation.evaluate import sample_and_measure
from plumbline.config import Seeds, changed
from plumbline.errors import ConfigError
from plumbline.runs.run import Run
from preference.config import DPOConfig, OnlineConfig
from preference.dpo import train_dpo
from preference.online import train_online
from recipes._shared import SharedConfig, shared_stages
from rl.config import PPOConfig
from rl.ppo import train_ppo

OFFLINE, PPO = "dpo", "ppo"
#: The settings that matter, for ``plumbline config preference_family --essential``.
ESSENTIAL = (
    "seeds", "data_seed", "base.name_or_path", "files.folder", "files.demonstrations",
    "files.preferences", "dpo.beta", "dpo.training.learning_rate", "methods", "online.rounds",
    "online.responses", "ppo.iterations", "ppo.learning_rate", "ppo.kl.coefficient",
    "evaluation.prompts",
)  # fmt: skip


class PreferenceFamilyConfig(SharedConfig):
    """Everything that may vary in this recipe."""

    seeds: Seeds = (0, 1, 2, 3, 4)
    """Training seeds, as a list or as 0-4; every method runs once with each."""
    dpo: DPOConfig = DPOConfig()
    """Offline DPO, on the labelled pairs."""
    online: OnlineConfig = OnlineConfig()
    """What the methods that sample and rank have in common."""
    methods: dict[str, dict[str, Any]] = Field({"online-dpo": {}}, min_length=1)
    """Each of their names, and the settings of online that it changes."""
    ppo: PPOConfig = PPOConfig()
    """Proximal policy optimisation."""
    budget: BudgetConfig = BudgetConfig()
    """Where in their training the methods are compared, in addition to its end."""
    prices: PriceConfig = PriceConfig()
    """What time and energy cost, for the page."""

    @model_validator(mode="after")
    def _all_sample_as_much(self) -> PreferenceFamilyConfig:
        expected = self.ppo.iterations * self.ppo.batch_size
        for name in self.methods:
            if name in (OFFLINE, PPO):
                raise ValueError(f"a method cannot be called {name!r}, which has settings here")
            try:
                method = self.method(name)
            except ConfigError as error:
                raise ValueError(f"method {name!r}: {error}") from None
            drawn = method.rounds * method.prompts_per_round * method.responses
            if drawn != expected:
                raise ValueError(
                    f"method {name!r} samples {drawn:,} responses (rounds * prompts_per_round * "
                    f"responses) and ppo {expected:,} (iterations * batch_size), so that one would "
                    "have had more to learn from. Make them equal"
                )
            if method.sampling != self.ppo.sampling:
                raise ValueError(
                    f"method {name!r} and ppo sample in different ways. Set online.sampling and "
                    "ppo.sampling to the same"
                )
        return self

    def method(self, name: str) -> OnlineConfig:
        """Return the settings of one method."""
        return changed(self.online, self.methods[name])


CONFIG = PreferenceFamilyConfig


def main(run: Run, config: PreferenceFamilyConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    # 1. Demonstrations, a base model, the SFT policy, preferences, a reward model, a judge.
    shared = shared_stages(run, config)
    methods = (OFFLINE, *config.methods, PPO)
    run.plan(
        f"{kind}{method}/seed-{seed}"
        for seed in config.seeds
        for method in methods
        for kind in ("", "evaluation/")
    )

    # 2. Each method, with several training seeds on the same data.
    aligned: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for seed in config.seeds:
        start = {"policy": shared.sft_policy, "hook": shared.hook, "seed": seed}
        in_the_loop = {**start, "prompts": shared.rl_prompts, "scorer": shared.scorer}
        for method in methods:
            name = f"{method}/seed-{seed}"
            if method == OFFLINE:
                arguments = {**start, "preferences": shared.preferences}
                policy = run.make(name, train_dpo, config=config.dpo, **arguments)
            elif method == PPO:
                policy = run.make(name, train_ppo, config=config.ppo, **in_the_loop)
            else:
                policy = run.make(name, train_online, config=config.method(method), **in_the_loop)
            evaluation = sample_and_measure(
                run, name, policy=policy, reference=shared.sft_policy, harness=shared.harness
            )
            aligned[method][str(seed)] = {"policy": policy, "evaluation": evaluation}

    # 3. Compare them: at a matched budget and at the end, paired by prompt, over seeds.
    report = run.make(
        "report",
        compare_methods,
        title="Preferences offline and with the reward model in the loop",
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
