"""Train one policy by PPO and by its relatives, and show how each of them learns.

All methods have the same SFT policy, reward model, prompts, and numbers of responses and optimiser
steps. They differ in how advantages are estimated, what is clipped and where the KL penalty counts.
Quality and KL over training are shown with intervals over training seeds.

    plumbline run rl_relatives --config relatives

The papers are named in docs/ppo.md.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from evaluation.comparison.learning_curves import report_curves
from evaluation.evaluate import sample_and_measure
from plumbline.config import Seeds, changed
from plumbline.errors import ConfigError
from plumbline.runs.run import Run
from recipes._shared import SharedConfig, shared_stages
from rl.config import PPOConfig
from rl.ppo import train_ppo


class RelativesConfig(SharedConfig):
    """Everything that may vary in this recipe."""

    seeds: Seeds = (0, 1, 2, 3, 4)
    """Training seeds, as a list or as 0-4; every method runs once with each."""
    ppo: PPOConfig = PPOConfig()
    """What all methods have in common."""
    methods: dict[str, dict[str, Any]] = Field({"ppo": {}}, min_length=1)
    """Each method's name, and the settings of ppo that it changes."""

    @model_validator(mode="after")
    def _methods_are_methods(self) -> RelativesConfig:
        for name in self.methods:
            try:
                self.method(name)
            except ConfigError as error:
                raise ValueError(f"method {name!r}: {error}") from None
        return self

    def method(self, name: str) -> PPOConfig:
        """Return the settings of one method."""
        return changed(self.ppo, self.methods[name])


CONFIG = RelativesConfig
ESSENTIAL = (
    "seeds", "data_seed", "methods", "base.name_or_path", "files.folder",
    "files.demonstrations", "files.preferences", "ppo.iterations", "ppo.batch_size",
    "ppo.group_size", "ppo.minibatch_size", "ppo.learning_rate", "ppo.kl.coefficient",
    "ppo.sampling.max_new_tokens", "evaluation.prompts",
)  # fmt: skip


def main(run: Run, config: RelativesConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    # 1. Demonstrations, a base model, the SFT policy, preferences, a reward model, a judge.
    shared = shared_stages(run, config)

    # 2. Each method, with several training seeds on the same data.
    trained: dict[str, dict[str, Any]] = {method: {} for method in config.methods}
    for seed in config.seeds:
        for method in config.methods:
            policy = run.make(
                f"{method}/seed-{seed}",
                train_ppo,
                config=config.method(method),
                policy=shared.sft_policy,
                prompts=shared.rl_prompts,
                scorer=shared.scorer,
                hook=shared.hook,
                seed=seed,
            )
            evaluation = sample_and_measure(
                run,
                f"{method}/seed-{seed}",
                policy=policy,
                reference=shared.sft_policy,
                harness=shared.harness,
            )
            trained[method][str(seed)] = {"policy": policy, "evaluation": evaluation}

    # 3. Report how each of them learns.
    report = run.make(
        "report",
        report_curves,
        title="PPO and its relatives",
        judge=shared.judge,
        baseline=shared.baseline,
        methods=trained,
        changes=config.methods,
    )
    return run.publish(report)
