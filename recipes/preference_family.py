"""Align one policy by preferences, offline and with the reward model in the loop, and by PPO.

Offline DPO learns from the labelled pairs. Iterative DPO, online DPO and training on the best of n
sample the policy's own responses, which the reward model ranks; PPO is rewarded by the same model.
Each of these samples exactly as many tokens as PPO did with the same seed, answers the same prompts
with the same limit of length, and each response is scored once. All are judged by the same harness
on the same held-out prompts.

    plumbline run preference_family --config family
    plumbline run preference_family --config family --seeds 0-4
    plumbline run preference_family --config remedies

The papers are named in docs/rooms/preference.md.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.compare import compare_methods
from evaluation.comparison.costs import PriceConfig
from evaluation.comparison.method_table import tabulate_methods
from evaluation.evaluate import sample_and_measure
from plumbline.config import Config, Seeds, changed, only_when
from plumbline.errors import ConfigError
from plumbline.runs.run import Run
from preference.config import DPOConfig, OnlineConfig
from preference.dpo import train_dpo
from preference.online import train_online
from recipes._shared import SharedConfig, shared_stages
from rl.config import PPOConfig
from rl.ppo import train_ppo

PPO = "ppo"
#: The settings that matter, for ``plumbline config preference_family --essential``.
ESSENTIAL = (
    "seeds", "data_seed", "base.name_or_path", "files.folder", "files.demonstrations",
    "files.preferences", "dpo.beta", "dpo.training.learning_rate", "methods",
    "equal_tokens", "online.responses", "ppo.iterations", "ppo.learning_rate",
    "ppo.kl.coefficient", "evaluation.prompts",
)  # fmt: skip


class PreferenceFamilyConfig(SharedConfig):
    """Everything that may vary in this recipe."""

    seeds: Seeds = (0, 1, 2, 3, 4)
    """Training seeds, as a list or as 0-4; every method runs once with each."""
    dpo: DPOConfig = DPOConfig()
    """What the methods that learn from the labelled pairs have in common."""
    offline: dict[str, dict[str, Any]] = Field({"dpo": {}})
    """Each of their names, and the settings of dpo that it changes."""
    online: OnlineConfig = OnlineConfig()
    """What the methods that sample and rank have in common."""
    methods: dict[str, dict[str, Any]] = Field({"online-dpo": {}})
    """Each of their names, and the settings of online that it changes."""
    ppo: PPOConfig | None = PPOConfig()
    """Proximal policy optimisation. Null: without it."""
    equal_tokens: bool = only_when(
        lambda config: config.ppo is not None and bool(config.methods), "ppo and methods", True
    )
    """Let the methods that sample draw exactly as many tokens as PPO did, seed by seed. False:
    as many responses, so that rounds * prompts_per_round * responses must be PPO's."""
    budget: BudgetConfig = BudgetConfig()
    """Where in their training the methods are compared, in addition to its end."""
    prices: PriceConfig = PriceConfig()
    """What time and energy cost, for the page."""

    @model_validator(mode="after")
    def _methods_have_names_of_their_own(self) -> PreferenceFamilyConfig:
        names = [*self.offline, *self.methods]
        for name in names:
            if name == PPO or names.count(name) > 1:
                raise ValueError(f"two methods would be called {name!r}; give one another name")
        if not names and self.ppo is None:
            raise ValueError("there is no method: name one in offline or methods, or set ppo")
        for name in names:
            try:
                self.offline_method(name) if name in self.offline else self.method(name, 1)
            except ConfigError as error:
                raise ValueError(f"method {name!r}: {error}") from None
        return self

    @model_validator(mode="after")
    def _all_sample_in_the_same_way(self) -> PreferenceFamilyConfig:
        if self.ppo is None:
            return self
        expected = self.ppo.iterations * self.ppo.batch_size
        for name in self.methods:
            method = self.method(name)
            if self.equal_tokens and method.rounds != OnlineConfig().rounds:
                raise ValueError(
                    f"method {name!r} has rounds {method.rounds}, which has no effect: with "
                    "equal_tokens it ends where it has sampled as many tokens as ppo. Leave rounds "
                    "out, or set equal_tokens to false"
                )
            drawn = method.rounds * method.prompts_per_round * method.responses
            if not self.equal_tokens and drawn != expected:
                raise ValueError(
                    f"method {name!r} samples {drawn:,} responses (rounds * prompts_per_round * "
                    f"responses) and ppo {expected:,} (iterations * batch_size), so that one would "
                    "have had more to learn from. Make them equal, or set equal_tokens to true"
                )
            if method.sampling != self.ppo.sampling:
                raise ValueError(
                    f"method {name!r} and ppo sample in different ways. Set online.sampling and "
                    "ppo.sampling to the same"
                )
        return self

    def offline_method(self, name: str) -> DPOConfig:
        """Return the settings of one method that learns from the labelled pairs."""
        return changed(self.dpo, self.offline[name])

    def method(self, name: str, tokens_of_ppo: float | None = None) -> OnlineConfig:
        """Return the settings of one method that samples, where PPO has sampled so many tokens."""
        method = changed(self.online, self.methods[name])
        if tokens_of_ppo is None or self.ppo is None or not self.equal_tokens:
            return method
        return changed(method, {"max_sampled_tokens": int(tokens_of_ppo)})


CONFIG = PreferenceFamilyConfig


def main(run: Run, config: PreferenceFamilyConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    # 1. Demonstrations, a base model, the SFT policy, preferences, a reward model, a judge.
    shared = shared_stages(run, config)
    methods = [*config.offline, *config.methods, *([PPO] if config.ppo is not None else [])]
    # PPO first: what it sampled is what the others may sample.
    order = [PPO, *methods[:-1]] if config.ppo is not None else methods
    run.plan(
        f"{kind}{method}/seed-{seed}"
        for seed in config.seeds
        for method in order
        for kind in ("", "evaluation/")
    )

    # 2. Each method, with several training seeds on the same data.
    aligned: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for seed in config.seeds:
        start = {"policy": shared.sft_policy, "hook": shared.hook, "seed": seed}
        in_the_loop = {**start, "prompts": shared.rl_prompts, "scorer": shared.scorer}
        tokens: float | None = None
        for method in order:
            name = f"{method}/seed-{seed}"
            if method in config.offline:
                how: Config = config.offline_method(method)
                policy = run.make(
                    name, train_dpo, config=how, **start, preferences=shared.preferences
                )
            elif method == PPO:
                policy = run.make(name, train_ppo, config=config.ppo, **in_the_loop)
                tokens = policy.metrics["tokens_sampled"]
            else:
                how = config.method(method, tokens)
                policy = run.make(name, train_online, config=how, **in_the_loop)
            evaluation = sample_and_measure(
                run, name, policy=policy, reference=shared.sft_policy, harness=shared.harness
            )
            aligned[method][str(seed)] = {"policy": policy, "evaluation": evaluation}

    # 3. One table: each method against the SFT policy, at four points of its training.
    against_start = {
        "judge": shared.judge, "baseline": shared.baseline, "methods": aligned,
        "confidence": config.evaluation.confidence,
    }  # fmt: skip
    run.make("methods", tabulate_methods, **against_start)

    # 4. Compare them: at a matched budget and at the end, paired by prompt, over seeds.
    report = run.make(
        "report",
        compare_methods,
        title="Preferences offline and with the reward model in the loop",
        **against_start,
        stages=run.stages,
        budget=config.budget,
        prices=config.prices,
        config=config,
    )
    return run.publish(report)
