"""Align one policy two ways, by DPO and by PPO, and show which did better.

From a base model through demonstrations, supervised fine-tuning, preference pairs and a reward
model to DPO and PPO side by side, each with several training seeds on the same data, and to a
report. Without files of your own it runs in the embedded world: a small shop's help desk, whose
gold utility tells how good an answer truly is.

    plumbline run dpo_vs_ppo --config quickstart
    plumbline run dpo_vs_ppo --config hh --set files.folder=/where/the/files/are

The steps are those of Ouyang et al. (2022) up to the reward model; then PPO as there, and DPO as in
Rafailov et al. (2023), on the same preferences.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import Field

from annotation.aggregate import aggregate_labels
from annotation.config import AggregationConfig, LabellingConfig
from annotation.simulated import simulate_labels
from evaluation.config import EvaluationConfig
from evaluation.evaluate import evaluate_policy
from evaluation.harness import Harness
from evaluation.report import build_report
from plumbline.base import BaseModelConfig, build_base
from plumbline.calls import SourceFile, defer
from plumbline.config import Config, without_effect
from plumbline.records import dataset_prompts
from plumbline.stages import Run
from plumbline.texts import training_texts
from plumbline.world.corpus import corpus
from plumbline.world.data import demonstrations, prompts
from plumbline.world.gold import GoldUtility
from preference.config import DPOConfig, PairsConfig, PreferenceFileConfig
from preference.dpo import train_dpo
from preference.pairs import sample_pairs
from preference.sources import import_preferences
from reward.config import RewardConfig
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model
from rl.config import PPOConfig
from rl.ppo import train_ppo
from sft.build import build_demonstrations
from sft.config import DemonstrationsConfig, SFTConfig
from sft.sources import from_file, from_rows
from sft.train import train_sft


class WorldConfig(Config):
    """How much of the embedded world is used."""

    documents: int = Field(20_000, ge=100)
    """Plain texts that the embedded base model is trained on."""
    demonstrations: int = Field(3_000, ge=10)
    """Conversations of the shop's clerks, in three forms."""
    ppo_prompts: int = Field(2_000, ge=2)
    """Prompts that PPO draws its rounds from."""


class FilesConfig(Config):
    """Real data, by path. Where this is set, the embedded world is not used."""

    folder: Path = without_effect(Path("data"))
    """Where the files lie; relative to where the command is given."""
    demonstrations: Path = without_effect(...)
    """Demonstrations: TRL messages, ShareGPT, Alpaca, GSM8K or prompt-completion."""
    preferences: Path = without_effect(...)
    """Preferences: Anthropic HH, TRL or ShareGPT with chosen and rejected."""


class DpoVsPpoConfig(Config):
    """Everything that may vary in this recipe."""

    seed: int = Field(0, ge=0)
    """Seed of what both methods share: base, first policy, pairs and reward model."""
    data_seed: int = Field(0, ge=0)
    """Seed of the data: the world, its prompts, votes and splits."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of DPO and PPO; both methods run once with each."""
    world: WorldConfig = WorldConfig()
    """How much of the embedded world is used."""
    files: FilesConfig | None = None
    """Real data instead of the embedded world."""
    base: BaseModelConfig = BaseModelConfig()
    """The base model."""
    demonstrations: DemonstrationsConfig = DemonstrationsConfig()
    """How demonstrations are cleaned and split."""
    sft: SFTConfig = SFTConfig()
    """Supervised fine-tuning."""
    pairs: PairsConfig = PairsConfig()
    """How pairs to label are sampled (embedded world only)."""
    labelling: LabellingConfig = LabellingConfig()
    """Who labels them (embedded world only)."""
    aggregation: AggregationConfig = AggregationConfig()
    """How votes become preferences (embedded world only)."""
    preferences: PreferenceFileConfig = PreferenceFileConfig()
    """How a file of preferences is read (files only)."""
    reward: RewardConfig = RewardConfig()
    """The reward model."""
    dpo: DPOConfig = DPOConfig()
    """Direct preference optimisation."""
    ppo: PPOConfig = PPOConfig()
    """Proximal policy optimisation."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How every policy is judged."""


CONFIG = DpoVsPpoConfig


def main(run: Run, config: DpoVsPpoConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    files, data_seed = config.files, config.data_seed

    # 1. Demonstrations, from the world or from a file; human preferences, if there is a file.
    demonstrated = run.make(
        "demonstrations",
        build_demonstrations,
        config=config.demonstrations,
        source=defer(
            from_rows,
            rows=defer(demonstrations, data_seed=data_seed, count=config.world.demonstrations),
            origin="embedded world",
        )
        if files is None
        else defer(from_file, file=SourceFile(files.folder / files.demonstrations)),
        data_seed=data_seed,
    )
    if files is not None:
        preferred = run.make(
            "preferences",
            import_preferences,
            config=config.preferences,
            file=SourceFile(files.folder / files.preferences),
            data_seed=data_seed,
        )

    # 2. The base model. The embedded one is trained from scratch on plain text.
    base = run.make(
        "base",
        build_base,
        config=config.base,
        texts=defer(corpus, data_seed=data_seed, documents=config.world.documents)
        if files is None
        else defer(training_texts, datasets=[demonstrated, preferred]),
        seed=config.seed,
    )

    # 3. The first policy.
    first = run.make(
        "sft",
        train_sft,
        config=config.sft,
        base=base,
        demonstrations=demonstrated,
        seed=config.seed,
    )

    # 4. In the world: pairs of its answers, votes on them by simulated labellers, preferences.
    if files is None:
        pairs = run.make(
            "pairs",
            sample_pairs,
            config=config.pairs,
            policy=first,
            prompts=defer(
                prompts, data_seed=data_seed, count=config.pairs.prompts, share="preferences"
            ),
            seed=config.seed,
        )
        labels = run.make(
            "labels",
            simulate_labels,
            config=config.labelling,
            pairs=pairs,
            utility=defer(GoldUtility, data_seed=data_seed),
            data_seed=data_seed,
        )
        preferred = run.make(
            "preferences",
            aggregate_labels,
            config=config.aggregation,
            pairs=pairs,
            labels=labels,
            data_seed=data_seed,
        )

    # 5. The reward model.
    rewarder = run.make(
        "reward",
        train_reward_model,
        config=config.reward,
        policy=first,
        preferences=preferred,
        seed=config.seed,
    )
    scorer = defer(RewardModelScorer, model=rewarder)

    # 6. One judge for all: the same held-out prompts, random streams and scorers, gold first.
    held_out = (
        defer(prompts, data_seed=data_seed, count=config.evaluation.prompts, share="heldout")
        if files is None
        else defer(dataset_prompts, dataset=preferred, split="test")
    )
    judge: dict[str, Any] = {
        "config": config.evaluation,
        "prompts": held_out,
        "scorers": [defer(GoldUtility, data_seed=data_seed), scorer] if files is None else [scorer],
        "data_seed": data_seed,
    }
    baseline = run.make(
        "evaluation/sft",
        evaluate_policy,
        policy=first,
        reference=first,
        harness=defer(Harness, **judge),
        data_seed=data_seed,
    )
    harness = defer(Harness, **judge, baseline=baseline)

    # 7. Align two ways, with several training seeds each on the same data.
    asked = (
        defer(prompts, data_seed=data_seed, count=config.world.ppo_prompts, share="preferences")
        if files is None
        else defer(dataset_prompts, dataset=preferred, split="train")
    )
    aligned: dict[str, dict[str, Any]] = {"dpo": {}, "ppo": {}}
    for seed in config.seeds:
        policies = {
            "dpo": run.make(
                f"dpo/seed-{seed}",
                train_dpo,
                config=config.dpo,
                policy=first,
                preferences=preferred,
                hook=harness,
                seed=seed,
            ),
            "ppo": run.make(
                f"ppo/seed-{seed}",
                train_ppo,
                config=config.ppo,
                policy=first,
                prompts=asked,
                scorer=scorer,
                hook=harness,
                seed=seed,
            ),
        }
        for method, policy in policies.items():
            evaluation = run.make(
                f"evaluation/{method}/seed-{seed}",
                evaluate_policy,
                policy=policy,
                reference=first,
                harness=harness,
                data_seed=data_seed,
            )
            aligned[method][str(seed)] = {"policy": policy, "evaluation": evaluation}

    # 8. What came of it.
    report = run.make(
        "report",
        build_report,
        title="DPO against PPO",
        judge="gold" if files is None else "reward",
        baseline=baseline,
        methods=aligned,
        reward_model=rewarder,
        preferences=preferred,
        stages=run.stages,
        config=config,
    )
    return run.publish(report)


if __name__ == "__main__":
    from plumbline.cli import main as command_line

    command_line(["run", __file__, *sys.argv[1:]])
