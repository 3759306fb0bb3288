"""Ask people which answers are better, and train a reward model on what they say.

Pairs of a policy's answers are put before people in Argilla, round by round: choose the pairs that
are worth a person's time, push, wait, pull, train reward models, choose again. Then a senior
labeller decides what the votes leave open, the votes become preferences, and a page shows how far
the people agree. It can be stopped while it waits; the same command resumes.

    plumbline run human_preferences --config people --campaign.people '[ana, ben, cem]'
    plumbline run human_preferences --simulate

With --simulate, simulated labellers sign in to the same server and do the work. The steps are
those of Ouyang et al. (2022), section 3, with the choice of pairs by an ensemble's disagreement as
in Christiano et al. (2017), section 2.2.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from annotation.aggregation.adjudication import queue_adjudication
from annotation.aggregation.aggregate import aggregate_labels
from annotation.aggregation.config import AdjudicationConfig, AggregationConfig
from annotation.agreement.page import report_agreement
from annotation.campaign.adjudicate import collect_decisions
from annotation.campaign.collect import collect_labels
from annotation.campaign.config import CampaignConfig, WaitConfig
from annotation.campaign.connect import SiteConfig, close_site, is_up
from annotation.selection.acquisition import STRATEGIES
from annotation.selection.config import SelectionConfig
from annotation.selection.select_pairs import select_pairs
from annotation.sources.config import LabelerConfig, LabelingConfig
from annotation.sources.gold_items import clearest_pairs, known_answers
from annotation.sources.merge import merge_labels
from plumbline.config import Config
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import Deferred, defer
from plumbline.runs.run import Run
from preference.pairs import sample_pairs
from preference.pairs_config import PairsConfig
from recipes._models import find_model
from recipes._shared import SFTPolicyConfig, World, train_sft_policy
from reward.config import RewardConfig
from reward.load_scorer import reward_scorer
from reward.train import train_reward_model
from sft.embeddings.embedder import TextEmbedder

SENIOR = LabelerConfig(name="senior", temperature=0.05)


class RoundsConfig(Config):
    """How the labelling is spread over rounds."""

    count: int = Field(2, ge=1)
    """Rounds. The first is chosen uniformly, the others by the reward models of those before."""
    ensemble: int = Field(2, ge=1)
    """Reward models trained after a round, with different seeds, to choose the next by."""


class HumanPreferencesConfig(SFTPolicyConfig):
    """Everything that may vary in this recipe."""

    simulate: bool = False
    """Let simulated labellers do the work, through the real server."""
    pairs: PairsConfig = PairsConfig()
    """How the pairs to choose from are sampled."""
    gold_items: int = Field(20, ge=0)
    """Pairs with a known answer, hidden among the others, to measure how reliable people are."""
    rounds: RoundsConfig = RoundsConfig()
    """How the labelling is spread over rounds."""
    selection: SelectionConfig = SelectionConfig(strategy="diverse", count=100)
    """How each round's pairs are chosen; the first round's strategy is always uniform."""
    embeddings: str | None = None
    """The embedding model (`plumbline train embeddings`) by which pairs are alike: run:stage, a
    folder, the id of an artefact. Null: by the words that they share."""
    site: SiteConfig = SiteConfig()
    """The labelling server."""
    campaign: CampaignConfig = CampaignConfig()
    """Who looks at what, and what they are asked."""
    wait: WaitConfig = WaitConfig(webhook=True)
    """How long to wait for labels, and how."""
    labeling: LabelingConfig = LabelingConfig()
    """The simulated labellers."""
    senior: str | None = None
    """Who decides what the votes leave open; nobody, if not set."""
    adjudication: AdjudicationConfig = AdjudicationConfig()
    """What is put before the senior labeller."""
    aggregation: AggregationConfig = AggregationConfig(method="dawid_skene")
    """How votes become preferences."""
    reward: RewardConfig = RewardConfig()
    """The reward model."""

    @model_validator(mode="after")
    def _somebody(self) -> HumanPreferencesConfig:
        if self.simulate and self.campaign.people:
            raise ValueError(
                f"simulate is set, and campaign.people names {', '.join(self.campaign.people)}. "
                "Simulated labellers are named in labeling.labelers; leave one of the two out"
            )
        needed = STRATEGIES[self.selection.strategy].members
        if self.rounds.count > 1 and self.rounds.ensemble < needed:
            raise ValueError(
                f"selection.strategy is {self.selection.strategy!r}, which needs {needed} reward "
                f"models or more, but rounds.ensemble is {self.rounds.ensemble}"
            )
        return self


CONFIG = HumanPreferencesConfig
ESSENTIAL = (
    "campaign.people", "campaign.name", "campaign.overlap", "campaign.gold_share",
    "campaign.guidelines", "pairs.prompts", "rounds.count", "selection.strategy",
    "selection.count", "site.port", "simulate", "senior", "aggregation.method", "wait.enough",
    "base.name_or_path",
)  # fmt: skip


class Labelers(NamedTuple):
    """Who labels, and how they are asked: people by name, or simulated labellers."""

    campaign: CampaignConfig
    simulated: tuple[LabelerConfig, ...]
    """Empty where people label."""
    asking: Mapping[str, Any]
    """Arguments of every stage that asks them."""


def main(run: Run, config: HumanPreferencesConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    was_up = is_up(config.site)

    # 1. A policy whose responses are worth comparing.
    world = World(run, config)
    policy = train_sft_policy(run, config, world)

    # 2. Pairs to choose from, and some in which one response is clearly better.
    pool = run.make(
        "pool",
        sample_pairs,
        config=config.pairs,
        policy=policy,
        prompts=world.prompts("preferences", config.pairs.prompts),
        seed=config.seed,
    )
    (utility,) = world.gold
    gold = run.make("gold", clearest_pairs, pairs=pool, utility=utility, count=config.gold_items)

    # 3. Round by round: choose pairs, push, wait, pull, train reward models, choose again.
    labelers = who_labels(config, utility)
    votes = label_in_rounds(run, config, labelers, policy, pool, gold)

    # 4. What the votes leave open goes to a senior labeller, whose decision stands beside them.
    labels = run.make("votes", merge_labels, labels=votes)
    if config.senior is not None:
        decisions = ask_the_senior(run, config, labelers, pool, labels)
        labels = run.make("labels", merge_labels, labels=[labels, decisions])

    # 5. Preferences, the reward model, and how far the people agree.
    preferences = run.make(
        "preferences",
        aggregate_labels,
        config=config.aggregation,
        pairs=pool,
        labels=labels,
        data_seed=config.data_seed,
    )
    reward_model = run.make(
        "reward",
        train_reward_model,
        config=config.reward,
        policy=policy,
        preferences=preferences,
        seed=config.seed,
    )
    agreement = run.make("agreement", report_agreement, labels=labels, pairs=pool, seed=config.seed)
    if config.simulate and not was_up:
        close_site(config.site)
    return run.publish(agreement) | {
        "reward_accuracy": reward_model.metrics.get("accuracy"),
        "preferences": preferences.metrics.get("train"),
    }


def who_labels(config: HumanPreferencesConfig, utility: Deferred[Any]) -> Labelers:
    """Return who labels: each has a queue of their own."""
    asking = {"site": config.site, "wait": config.wait, "data_seed": config.data_seed}
    if not config.simulate:
        return Labelers(config.campaign, (), asking)
    simulated = config.labeling.labelers
    queues = {
        "people": tuple(labeler.name for labeler in simulated),
        "overlap": config.labeling.votes,
    }
    return Labelers(
        config.campaign.model_copy(update=queues), simulated, asking | {"utility": utility}
    )


def label_in_rounds(
    run: Run,
    config: HumanPreferencesConfig,
    labelers: Labelers,
    policy: Artifact,
    pool: Artifact,
    gold: Artifact,
) -> list[Artifact]:
    """Return each round's labels. A round is chosen by the reward models of those before it."""
    batches: list[Artifact] = []
    votes: list[Artifact] = []
    reward_models: list[Artifact] = []
    distance = {}
    if config.embeddings is not None:
        model = find_model(run, config.embeddings, "embeddings")
        distance["embedder"] = defer(TextEmbedder, model=model)
    for number in range(1, config.rounds.count + 1):
        selection = config.selection
        if not reward_models:
            selection = selection.model_copy(update={"strategy": "uniform"})
        batch = run.make(
            f"round-{number}/pairs",
            select_pairs,
            config=selection,
            pairs=pool,
            scorers=[defer(reward_scorer, model=model) for model in reward_models],
            labeled=[gold, *batches],
            seed=config.seed,
            **distance,
        )
        labels = run.make(
            f"round-{number}/labels",
            collect_labels,
            config=labelers.campaign,
            pairs=batch,
            gold=defer(known_answers, pairs=gold),
            labelers=labelers.simulated,
            **labelers.asking,
        )
        batches.append(batch)
        votes.append(labels)
        if number < config.rounds.count:
            reward_models = train_ensemble(run, config, number, policy, pool, votes)
    return votes


def train_ensemble(
    run: Run,
    config: HumanPreferencesConfig,
    number: int,
    policy: Artifact,
    pool: Artifact,
    votes: Sequence[Artifact],
) -> list[Artifact]:
    """Train reward models on all votes so far, with different seeds."""
    preferences = run.make(
        f"round-{number}/preferences",
        aggregate_labels,
        config=config.aggregation,
        pairs=pool,
        labels=run.make(f"round-{number}/all", merge_labels, labels=list(votes)),
        data_seed=config.data_seed,
    )
    return [
        run.make(
            f"round-{number}/reward-{member}",
            train_reward_model,
            config=config.reward,
            policy=policy,
            preferences=preferences,
            seed=config.seed + member,
        )
        for member in range(config.rounds.ensemble)
    ]


def ask_the_senior(
    run: Run,
    config: HumanPreferencesConfig,
    labelers: Labelers,
    pool: Artifact,
    votes: Artifact,
) -> Artifact:
    """Put what the votes leave open before the senior labeller; return the decisions."""
    assert config.senior is not None
    queue = run.make(
        "doubtful",
        queue_adjudication,
        config=config.adjudication,
        aggregation=config.aggregation,
        pairs=pool,
        labels=votes,
        data_seed=config.data_seed,
    )
    return run.make(
        "decisions",
        collect_decisions,
        config=labelers.campaign,
        queue=queue,
        senior=config.senior,
        labeler=SENIOR.model_copy(update={"name": config.senior}) if config.simulate else None,
        **labelers.asking,
    )
