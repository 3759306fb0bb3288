"""What recipes that compare ways of aligning share: everything up to the reward model and judge.

From the embedded world, or from files: demonstrations, a base model, the first policy, pairs with
votes (or a file of preferences), a reward model, and one judge for every policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from annotation.aggregation.aggregate import aggregate_labels
from annotation.config import AggregationConfig, LabelingConfig
from annotation.sources.simulated_labels import simulate_labels
from evaluation.config import EvaluationConfig
from evaluation.evaluate import measure_samples
from evaluation.harness import Harness
from evaluation.measures.registry import MeasuresConfig, chosen
from evaluation.tasks.checkers import ShopFormat
from evaluation.tasks.sampling import sample_policy
from evaluation.tasks.sources import dataset_task, world_task
from plumbline.config import Config, not_in_identity
from plumbline.data.records import dataset_prompts
from plumbline.data.texts import training_texts
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile, defer
from plumbline.runs.run import Run
from plumbline.training.base_model import BaseModelConfig, build_base
from plumbline.world.corpus import corpus
from plumbline.world.data import demonstrations, prompts
from plumbline.world.gold import GoldUtility
from preference.config import PairsConfig, PreferenceFileConfig
from preference.pairs import sample_pairs
from preference.sources import import_preferences
from reward.config import RewardConfig
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model
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

    folder: Path = not_in_identity(Path("data"))
    """Where the files lie; relative to where the command is given."""
    demonstrations: Path = not_in_identity(...)
    """Demonstrations: TRL messages, ShareGPT, Alpaca, GSM8K or prompt-completion."""
    preferences: Path = not_in_identity(...)
    """Preferences: Anthropic HH, TRL or ShareGPT with chosen and rejected."""


class GroundConfig(Config):
    """Everything that may vary up to the reward model and the judge."""

    seed: int = Field(0, ge=0)
    """Seed of what all methods share: base, first policy, pairs and reward model."""
    data_seed: int = Field(0, ge=0)
    """Seed of the data: the world, its prompts, votes and splits."""
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
    labeling: LabelingConfig = LabelingConfig()
    """Who labels them (embedded world only)."""
    aggregation: AggregationConfig = AggregationConfig()
    """How votes become preferences (embedded world only)."""
    preferences: PreferenceFileConfig = PreferenceFileConfig()
    """How a file of preferences is read (files only)."""
    reward: RewardConfig = RewardConfig()
    """The reward model."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How every policy is judged."""
    measures: MeasuresConfig = MeasuresConfig()
    """What is measured of finished policies' answers, beside what judges them."""


class Ground(NamedTuple):
    """What every method starts from and is judged by."""

    first: Artifact
    """The first policy."""
    preferred: Artifact
    """Preferences."""
    rewarder: Artifact
    """The reward model."""
    scorer: Any
    """The reward model as a scorer, deferred."""
    asked: Any
    """The prompts that reinforcement learning draws from, deferred."""
    baseline: Artifact
    """The first policy, judged."""
    harness: Any
    """The judge of finished policies, with all measures, deferred."""
    judge: str
    """The scorer that decides: gold, or reward where there is no gold."""
    hook: Any
    """The same judge for policies in training, without the measures, deferred."""


def prepare(run: Run, config: GroundConfig) -> Ground:
    """Make what every method starts from."""
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

    # 3. The first policy. What judges it on the way asks the prompts that all others answer, too.
    held_out = (
        defer(world_task, data_seed=data_seed, count=config.evaluation.prompts)
        if files is None
        else defer(dataset_task, dataset=preferred, split="test")
    )
    gold = [defer(GoldUtility, data_seed=data_seed)] if files is None else []
    asks: dict[str, Any] = {
        "config": config.evaluation,
        "prompts": held_out,
        "data_seed": data_seed,
    }
    first = run.make(
        "sft",
        train_sft,
        config=config.sft,
        base=base,
        demonstrations=demonstrated,
        seed=config.seed,
        hook=defer(Harness, **asks, scorers=gold),
    )
    answers = run.make(
        "samples/sft",
        sample_policy,
        policy=first,
        prompts=held_out,
        count=config.evaluation.prompts,
        sampling=config.evaluation.sampling,
        data_seed=data_seed,
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
            config=config.labeling,
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
        hook=defer(Harness, **asks, scorers=gold, answers=answers, pairs=preferred),
    )
    scorer = defer(RewardModelScorer, model=rewarder)

    # 6. One judge for all: the same held-out prompts, random streams and scorers, gold first.
    # Measures are no part of what judges in training, so that taking another trains nothing anew.
    judge: dict[str, Any] = asks | {"scorers": [*gold, scorer]}
    measures = chosen(
        config.measures, defer(ShopFormat, data_seed=data_seed) if files is None else None
    )
    start: dict[str, Any] = {
        "samples": answers,
        "policy": first,
        "reference": first,
        "data_seed": data_seed,
    }
    scored = run.make("scores/sft", measure_samples, **start, harness=defer(Harness, **judge))
    baseline = run.make(
        "evaluation/sft",
        measure_samples,
        **start,
        harness=defer(Harness, **judge, measures=measures),
    )
    hook = defer(Harness, **judge, baseline=scored)
    harness = defer(Harness, **judge, baseline=scored, measures=measures)
    asked = (
        defer(prompts, data_seed=data_seed, count=config.world.ppo_prompts, share="preferences")
        if files is None
        else defer(dataset_prompts, dataset=preferred, split="train")
    )
    return Ground(
        first,
        preferred,
        rewarder,
        scorer,
        asked,
        baseline,
        harness,
        "gold" if files is None else "reward",
        hook,
    )
