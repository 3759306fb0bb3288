"""What recipes share: an SFT policy, preferences, a reward model, and one judge for all policies.

The data come from one of two sources, `World` (the embedded world) or `Files`. What is made of them
is the same: `train_sft_policy` makes the policy that every method starts from, the source's
``preferences`` makes preferences between its responses, and `shared_stages` adds the reward model
and the judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from annotation.aggregation.aggregate import aggregate_labels
from annotation.aggregation.config import AggregationConfig
from annotation.sources.config import LabelingConfig
from annotation.sources.simulated_labels import simulate_labels
from evaluation.config import EvaluationConfig
from evaluation.harness import Harness
from evaluation.measures.registry import MeasuresConfig, select_measures
from evaluation.tasks.sources import dataset_task
from plumbline.config import Check, Config, Seed, not_in_identity, only_when
from plumbline.data.reader import check_first_rows
from plumbline.data.records import Conversation
from plumbline.data.sources import source_at
from plumbline.data.texts import training_texts
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import Deferred, defer
from plumbline.runs.run import Run
from plumbline.training.base_model import BaseModelConfig, make_base
from plumbline.training.prompt_rounds import dataset_prompts
from plumbline.world.checks import ShopFormat
from plumbline.world.corpus import corpus
from plumbline.world.data import demonstrations, prompts
from plumbline.world.gold import GoldUtility
from plumbline.world.tasks import world_task
from preference.pairs import sample_pairs
from preference.pairs_config import PairsConfig, PreferenceFileConfig
from preference.sources import import_preferences
from recipes._judge import build_judge, sample_start
from reward.audit.audit import audit_reward_model
from reward.audit.config import AuditConfig
from reward.config import RewardConfig
from reward.load_scorer import reward_scorer
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


class RLWorldConfig(WorldConfig):
    """How much of the embedded world is used, prompts of reinforcement learning included."""

    ppo_prompts: int = Field(2_000, ge=2)
    """Prompts that PPO draws its rounds from."""


class FilesConfig(Config):
    """Real data, by path. Where this is set, the embedded world is not used."""

    folder: Path = not_in_identity(Path("data"))
    """Where the files lie; relative to where the command is given."""
    demonstrations: Path = not_in_identity(...)
    """Demonstrations in any format of docs/formats.md: a file, a folder that `datasets` reads, or a
    dataset of the hub (``org/name``, or with its split ``org/name:train``)."""
    preferences: Path = not_in_identity(...)
    """Preferences in any format of docs/formats.md, given in the same way."""


class SFTPolicyConfig(Config):
    """Everything that may vary up to the SFT policy."""

    seed: Seed = 0
    """Seed of the models that all methods share."""
    data_seed: Seed = 0
    """Seed of the data: the world, its prompts, votes and splits."""
    world: WorldConfig = WorldConfig()
    """How much of the embedded world is used."""
    base: BaseModelConfig = BaseModelConfig()
    """The base model."""
    demonstrations: DemonstrationsConfig = DemonstrationsConfig()
    """How demonstrations are cleaned and split."""
    sft: SFTConfig = SFTConfig()
    """Supervised fine-tuning."""


def _in_the_world(config: Any) -> bool:
    return config.files is None


_WORLD = "the embedded world, so that files is null"


class SharedConfig(SFTPolicyConfig):
    """Everything that may vary up to the reward model and the judge."""

    files: FilesConfig | None = None
    """Real data instead of the embedded world."""
    world: RLWorldConfig = only_when(_in_the_world, _WORLD, RLWorldConfig())
    """How much of the embedded world is used."""
    pairs: PairsConfig = only_when(_in_the_world, _WORLD, PairsConfig())
    """How pairs to label are sampled."""
    labeling: LabelingConfig = only_when(_in_the_world, _WORLD, LabelingConfig())
    """Who labels them."""
    aggregation: AggregationConfig = only_when(_in_the_world, _WORLD, AggregationConfig())
    """How votes become preferences."""
    preferences: PreferenceFileConfig = only_when(
        lambda config: not _in_the_world(config), "files", PreferenceFileConfig()
    )
    """How a file of preferences is read."""
    reward: RewardConfig = RewardConfig()
    """The reward model."""
    audit_reward: bool = False
    """Audit the reward model on the held-out preferences (docs/reward-audit.md); the report shows
    the verdict."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How every policy is evaluated."""
    measures: MeasuresConfig = MeasuresConfig()
    """What is measured of finished policies' responses, beside what judges them."""

    def checks_before_work(self) -> Sequence[Check]:
        """Read the first rows of both files."""
        files = self.files
        if files is None:
            return ()
        return (
            partial(check_first_rows, "demonstrations", files.demonstrations, files.folder,
                    self.demonstrations),
            partial(check_first_rows, "preferences", files.preferences, files.folder,
                    self.preferences),
        )  # fmt: skip


class World:
    """Data of the embedded world, whose gold utility knows how good a response is."""

    judge = "gold"

    def __init__(self, run: Run, config: SFTPolicyConfig) -> None:
        self._run, self._config, self._data_seed = run, config, config.data_seed
        self.gold = [defer(GoldUtility, data_seed=self._data_seed)]
        self.checker = defer(ShopFormat, data_seed=self._data_seed)

    def demonstrations(self) -> Deferred[Any]:
        """Return what the shop's clerks wrote."""
        count = self._config.world.demonstrations
        return defer(
            from_rows,
            rows=defer(demonstrations, data_seed=self._data_seed, count=count),
            origin="embedded world",
        )

    def base_texts(self, demonstrated: Artifact) -> Deferred[Any]:
        """Return the plain texts that the embedded base model is trained on."""
        documents = self._config.world.documents
        return defer(corpus, data_seed=self._data_seed, documents=documents)

    def prompts(self, share: str, count: int) -> Deferred[Any]:
        """Return prompts of a share, which no other share has."""
        return defer(prompts, data_seed=self._data_seed, count=count, share=share)

    def rl_prompts(self) -> Deferred[Any]:
        """Return the prompts that reinforcement learning draws from."""
        assert isinstance(self._config.world, RLWorldConfig)
        return self.prompts("preferences", self._config.world.ppo_prompts)

    def heldout_task(self, count: int) -> Deferred[Any]:
        """Return the prompts that every policy is evaluated on."""
        return defer(world_task, data_seed=self._data_seed, count=count)

    def spare_prompts(self, count: int, used: int) -> Deferred[Any]:
        """Return prompts that neither training nor `heldout_task` has: undemonstrated ones."""
        skip = self._config.world.demonstrations
        return defer(
            those_after,
            prompts=self.prompts("demonstrations", skip + count),
            skip=skip,
            count=count,
        )

    def preferences(self, config: SharedConfig, policy: Artifact) -> Artifact:
        """Make pairs of the policy's responses, simulated votes on them, and preferences."""
        pairs = self._run.make(
            "pairs",
            sample_pairs,
            config=config.pairs,
            policy=policy,
            prompts=self.prompts("preferences", config.pairs.prompts),
            seed=config.seed,
        )
        labels = self._run.make(
            "labels",
            simulate_labels,
            config=config.labeling,
            pairs=pairs,
            utility=self.gold[0],
            data_seed=self._data_seed,
        )
        return self._run.make(
            "preferences",
            aggregate_labels,
            config=config.aggregation,
            pairs=pairs,
            labels=labels,
            data_seed=self._data_seed,
        )


class Files:
    """Data from files. Nothing knows how good a response truly is, so the reward model judges."""

    judge = "reward"
    gold: Sequence[Deferred[Any]] = ()
    checker = None

    def __init__(self, run: Run, config: SharedConfig, files: FilesConfig) -> None:
        self._demonstrations = source_at(files.demonstrations, files.folder)
        self._reading = config.demonstrations
        self._preferences = run.make(
            "preferences",
            import_preferences,
            config=config.preferences,
            file=source_at(files.preferences, files.folder),
            data_seed=config.data_seed,
        )

    def demonstrations(self) -> Deferred[Any]:
        """Return the file of demonstrations, read when it is needed."""
        return defer(from_file, file=self._demonstrations, config=self._reading)

    def base_texts(self, demonstrated: Artifact) -> Deferred[Any]:
        """Return the training splits as plain texts, for the embedded base model."""
        return defer(training_texts, datasets=[demonstrated, self._preferences])

    def rl_prompts(self) -> Deferred[Any]:
        """Return the prompts that reinforcement learning draws from."""
        return defer(dataset_prompts, dataset=self._preferences, split="train")

    def heldout_task(self, count: int) -> Deferred[Any]:
        """Return the prompts that every policy is evaluated on: the first ``count`` are asked."""
        return defer(dataset_task, dataset=self._preferences, split="test")

    def spare_prompts(self, count: int, used: int) -> Deferred[Any]:
        """Return held-out prompts after the first ``used``, on which every policy is evaluated."""
        held_out = defer(dataset_prompts, dataset=self._preferences, split="test")
        return defer(those_after, prompts=held_out, skip=used, count=count)

    def preferences(self, config: SharedConfig, policy: Artifact) -> Artifact:
        """Return the preferences of the file."""
        return self._preferences


class SharedStages(NamedTuple):
    """What every method starts from and is evaluated with."""

    source: World | Files
    """Where the data come from."""
    sft_policy: Artifact
    """The policy that every method starts from."""
    preferences: Artifact
    """Preferences between responses."""
    reward_model: Artifact
    """The reward model."""
    scorer: Deferred[Any]
    """The reward model as a scorer."""
    rl_prompts: Deferred[Any]
    """The prompts that reinforcement learning draws from."""
    baseline: Artifact
    """The evaluation of the SFT policy."""
    harness: Deferred[Any]
    """The judge of finished policies, with all measures."""
    hook: Deferred[Any]
    """The same judge for policies in training, without the measures."""

    @property
    def judge(self) -> str:
        """The scorer that decides: gold, or reward where there is no gold."""
        return self.source.judge


def train_sft_policy(
    run: Run,
    config: SFTPolicyConfig,
    source: World | Files,
    hook: Deferred[Any] | None = None,
) -> Artifact:
    """Make the base model, then the policy by supervised fine-tuning on demonstrations.

    ``hook`` judges the policy while it trains.
    """
    demonstrated = run.make(
        "demonstrations",
        build_demonstrations,
        config=config.demonstrations,
        source=source.demonstrations(),
        data_seed=config.data_seed,
    )
    base = make_base(run, config.base, texts=source.base_texts(demonstrated), seed=config.seed)
    return run.make(
        "sft",
        train_sft,
        config=config.sft,
        base=base,
        demonstrations=demonstrated,
        seed=config.seed,
        hook=hook,
    )


def shared_stages(run: Run, config: SharedConfig) -> SharedStages:
    """Make what every method starts from and is evaluated with."""
    data_seed = config.data_seed
    source = World(run, config) if config.files is None else Files(run, config, config.files)
    task = source.heldout_task(config.evaluation.prompts)
    in_training = {"config": config.evaluation, "prompts": task, "data_seed": data_seed}

    # 1. The SFT policy, and its responses to the prompts that every policy is evaluated on.
    gold = list(source.gold)
    sft_policy = train_sft_policy(
        run, config, source, hook=defer(Harness, **in_training, scorers=gold)
    )
    responses = sample_start(run, sft_policy, task, config.evaluation, data_seed)

    # 2. Preferences, and the reward model that learns from them.
    preferences = source.preferences(config, sft_policy)
    reward_model = run.make(
        "reward",
        train_reward_model,
        config=config.reward,
        policy=sft_policy,
        preferences=preferences,
        seed=config.seed,
        hook=defer(Harness, **in_training, scorers=gold, responses=responses, pairs=preferences),
    )
    scorer = defer(reward_scorer, model=reward_model)
    if config.audit_reward:
        run.make(
            "audit",
            audit_reward_model,
            config=AuditConfig(),
            scorer=scorer,
            name="the reward model",
            data=[preferences],
            data_seed=data_seed,
        )

    # 3. One judge for all, gold first.
    judge = build_judge(
        run,
        sft_policy,
        responses,
        config=config.evaluation,
        task=task,
        scorers=[*gold, scorer],
        measures=select_measures(config.measures, source.checker),
        data_seed=data_seed,
    )
    return SharedStages(
        source, sft_policy, preferences, reward_model, scorer, source.rl_prompts(), *judge
    )


def those_after(prompts: Sequence[Conversation], skip: int, count: int) -> list[Conversation]:
    """Return ``count`` prompts after the first ``skip``."""
    spare = list(prompts[skip : skip + count])
    if len(spare) < count:
        raise DataError(
            f"{count} prompts are needed besides the {skip} that are used already, but there are "
            f"only {len(prompts)}. Lower search.prompts or evaluation.prompts, or raise "
            "preferences.held_out_share."
        )
    return spare
