"""Ask people which answers are better, and train a reward model on what they say.

Pairs of a policy's answers are put before people in Argilla, round by round: choose the pairs that
are worth a person's time, push, wait, pull, train reward models, choose again. Then a senior
labeller decides what the votes leave open, the votes become preferences, and a page shows how far
the people agree. It can be stopped while it waits; the same command goes on.

    plumbline run human_preferences --config people --campaign.people '[ana, ben, cem]'
    plumbline run human_preferences --simulate

With --simulate, simulated labellers sign in to the same server and do the work. The steps are
those of Ouyang et al. (2022), section 3, with the choice of pairs by an ensemble's disagreement as
in Christiano et al. (2017), section 2.2.4.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from annotation.aggregation.adjudication import queue_adjudication
from annotation.aggregation.aggregate import aggregate_labels
from annotation.agreement.page import report_agreement
from annotation.campaign.collect import ask_people
from annotation.campaign.config import CampaignConfig, WaitConfig
from annotation.campaign.connect import SiteConfig, close_site, is_up
from annotation.campaign.senior import ask_senior
from annotation.config import (
    AdjudicationConfig,
    AggregationConfig,
    LabelerConfig,
    LabelingConfig,
    SelectionConfig,
)
from annotation.selection.select_pairs import select_pairs
from annotation.sources.gold_items import clearest_pairs, known_answers
from annotation.sources.merge import merge_labels
from plumbline.config import Config
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import defer
from plumbline.runs.run import Run
from plumbline.training.base_model import BaseModelConfig
from plumbline.world.data import prompts
from plumbline.world.gold import GoldUtility
from preference.config import PairsConfig
from preference.pairs import sample_pairs
from recipes._first import first_policy
from recipes._shared import WorldConfig
from reward.config import RewardConfig
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model
from sft.config import DemonstrationsConfig, SFTConfig

SENIOR = LabelerConfig(name="senior", temperature=0.05)


class RoundsConfig(Config):
    """How the labelling is spread over rounds."""

    count: int = Field(2, ge=1)
    """Rounds. The first is chosen uniformly, the others by the reward models of those before."""
    ensemble: int = Field(2, ge=1)
    """Reward models trained after a round, with different seeds, to choose the next by."""


class HumanPreferencesConfig(Config):
    """Everything that may vary in this recipe."""

    simulate: bool = False
    """Let simulated labellers do the work, through the real server."""
    seed: int = Field(0, ge=0)
    """Seed of the models and of the choice of pairs."""
    data_seed: int = Field(0, ge=0)
    """Seed of the data: the world, its prompts, splits and simulated labellers."""
    world: WorldConfig = WorldConfig()
    """How much of the embedded world is used."""
    base: BaseModelConfig = BaseModelConfig()
    """The base model."""
    demonstrations: DemonstrationsConfig = DemonstrationsConfig()
    """How demonstrations are cleaned and split."""
    sft: SFTConfig = SFTConfig()
    """Supervised fine-tuning."""
    pairs: PairsConfig = PairsConfig()
    """How the pairs to choose from are sampled."""
    gold_items: int = Field(20, ge=0)
    """Pairs with a known answer, mixed in unseen to see who can be relied upon."""
    rounds: RoundsConfig = RoundsConfig()
    """How the labelling is spread over rounds."""
    selection: SelectionConfig = SelectionConfig(strategy="diverse", count=100)
    """How each round's pairs are chosen; the first round's strategy is always uniform."""
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
        several_needed = self.selection.strategy in ("disagreement", "diverse")
        if self.rounds.count > 1 and self.rounds.ensemble < 2 and several_needed:
            raise ValueError(
                f"selection.strategy is {self.selection.strategy!r}, which needs two reward "
                f"models or more, but rounds.ensemble is {self.rounds.ensemble}"
            )
        return self


CONFIG = HumanPreferencesConfig


def main(run: Run, config: HumanPreferencesConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    data_seed = config.data_seed
    was_up = is_up(config.site)

    # 1. A policy whose answers are worth comparing.
    policy = first_policy(run, config)

    # 2. Pairs to choose from, and some whose answer is beyond doubt.
    pool = run.make(
        "pool",
        sample_pairs,
        config=config.pairs,
        policy=policy,
        prompts=defer(
            prompts, data_seed=data_seed, count=config.pairs.prompts, share="preferences"
        ),
        seed=config.seed,
    )
    utility = defer(GoldUtility, data_seed=data_seed)
    gold = run.make("gold", clearest_pairs, pairs=pool, utility=utility, count=config.gold_items)

    # 3. Who labels: people by name, or simulated labellers, each with a queue of their own.
    labelers = config.labeling.labelers if config.simulate else ()
    campaign = config.campaign
    if config.simulate:
        campaign = campaign.model_copy(
            update={
                "people": tuple(labeler.name for labeler in labelers),
                "overlap": config.labeling.votes,
            }
        )
    work: dict[str, Any] = {"site": config.site, "wait": config.wait, "data_seed": data_seed}
    judged_by: dict[str, Any] = {"utility": utility} if config.simulate else {}

    # 4. Round by round: choose, push, wait, pull, train, choose again.
    asked: list[Artifact] = []
    given: list[Artifact] = []
    rewarders: list[Artifact] = []
    for number in range(1, config.rounds.count + 1):
        chosen = run.make(
            f"round-{number}/pairs",
            select_pairs,
            config=config.selection
            if rewarders
            else config.selection.model_copy(update={"strategy": "uniform"}),
            pairs=pool,
            scorers=[defer(RewardModelScorer, model=model) for model in rewarders],
            labeled=[gold, *asked],
            seed=config.seed,
        )
        labels = run.make(
            f"round-{number}/labels",
            ask_people,
            config=campaign,
            pairs=chosen,
            gold=defer(known_answers, pairs=gold),
            labelers=labelers,
            **judged_by,
            **work,
        )
        asked.append(chosen)
        given.append(labels)
        if number < config.rounds.count:
            so_far = run.make(f"round-{number}/all", merge_labels, labels=given)
            preferred = run.make(
                f"round-{number}/preferences",
                aggregate_labels,
                config=config.aggregation,
                pairs=pool,
                labels=so_far,
                data_seed=data_seed,
            )
            rewarders = [
                run.make(
                    f"round-{number}/reward-{member}",
                    train_reward_model,
                    config=config.reward,
                    policy=policy,
                    preferences=preferred,
                    seed=config.seed + member,
                )
                for member in range(config.rounds.ensemble)
            ]

    # 5. What the votes leave open goes to a senior labeller, whose decision stands beside them.
    labels = run.make("votes", merge_labels, labels=given)
    if config.senior is not None:
        doubtful = run.make(
            "doubtful",
            queue_adjudication,
            config=config.adjudication,
            aggregation=config.aggregation,
            pairs=pool,
            labels=labels,
            data_seed=data_seed,
        )
        decisions = run.make(
            "decisions",
            ask_senior,
            config=campaign,
            queue=doubtful,
            senior=config.senior,
            labeler=SENIOR.model_copy(update={"name": config.senior}) if config.simulate else None,
            **judged_by,
            **work,
        )
        labels = run.make("labels", merge_labels, labels=[labels, decisions])

    # 6. Preferences, the reward model, and how far the people agree.
    preferred = run.make(
        "preferences",
        aggregate_labels,
        config=config.aggregation,
        pairs=pool,
        labels=labels,
        data_seed=data_seed,
    )
    rewarder = run.make(
        "reward",
        train_reward_model,
        config=config.reward,
        policy=policy,
        preferences=preferred,
        seed=config.seed,
    )
    agreement = run.make("agreement", report_agreement, labels=labels, pairs=pool, seed=config.seed)
    if config.simulate and not was_up:
        close_site(config.site)
    return run.publish(agreement) | {
        "reward_accuracy": rewarder.manifest.metrics.get("accuracy"),
        "preferences": preferred.manifest.metrics.get("train"),
    }
