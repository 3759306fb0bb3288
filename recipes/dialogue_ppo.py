"""Align a policy in dialogues: the customers of a help desk answer back while it learns.

From a base model through demonstrations and supervised fine-tuning to PPO in episodes of several
turns. The policy answers, a customer of the embedded world asks again, goes on or leaves, and the
answer to the last question is paid for. Only what the policy says is learnt from.

    plumbline run dialogue_ppo --config dialogue

PPO is that of Ziegler et al. (2019), with the whole dialogue as one episode.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from plumbline.config import Config
from plumbline.runs.calls import defer
from plumbline.runs.run import Run
from plumbline.training.base_model import BaseModelConfig
from plumbline.world.data import prompts
from plumbline.world.gold import GoldUtility
from recipes._first import first_policy
from rl.config import PPOConfig
from rl.dialogues import DialogueJudge, compare_dialogues, judge_dialogues
from rl.environments import HelpDeskCustomer
from rl.ppo import train_ppo
from sft.config import DemonstrationsConfig, SFTConfig


class DialogueWorldConfig(Config):
    """How much of the embedded world is used."""

    documents: int = Field(20_000, ge=100)
    """Plain texts that the embedded base model is trained on."""
    demonstrations: int = Field(3_000, ge=10)
    """Conversations of the shop's clerks, in three forms."""
    ppo_prompts: int = Field(2_000, ge=2)
    """Prompts that PPO draws its rounds from."""
    heldout_prompts: int = Field(200, ge=2)
    """Prompts that the policy is judged by, before and after."""
    turns: int = Field(3, ge=1)
    """Most turns of the policy in one dialogue."""


class DialoguePPOConfig(Config):
    """Everything that may vary in this recipe."""

    seed: int = Field(0, ge=0)
    """Seed of the models."""
    data_seed: int = Field(0, ge=0)
    """Seed of the data: the world, its prompts and its customers."""
    world: DialogueWorldConfig = DialogueWorldConfig()
    """How much of the embedded world is used."""
    base: BaseModelConfig = BaseModelConfig()
    """The base model."""
    demonstrations: DemonstrationsConfig = DemonstrationsConfig()
    """How demonstrations are cleaned and split."""
    sft: SFTConfig = SFTConfig()
    """Supervised fine-tuning."""
    ppo: PPOConfig = PPOConfig()
    """Proximal policy optimisation; dialogues are judged with its sampling, too."""


CONFIG = DialoguePPOConfig


def main(run: Run, config: DialoguePPOConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    data_seed = config.data_seed

    # 1. The base model from scratch, and the first policy, from demonstrations that end with their
    # first answer.
    first = first_policy(run, config)

    # 2. One judge: the same held-out prompts, the same customer, the gold utility.
    customer = defer(HelpDeskCustomer, data_seed=data_seed, turns=config.world.turns)
    utility = defer(GoldUtility, data_seed=data_seed)
    judge = defer(
        DialogueJudge,
        sampling=config.ppo.sampling,
        prompts=defer(
            prompts, data_seed=data_seed, count=config.world.heldout_prompts, share="heldout"
        ),
        environment=customer,
        scorer=utility,
        data_seed=data_seed,
    )
    before = run.make("dialogues/sft", judge_dialogues, policy=first, judge=judge)

    # 3. PPO in dialogues, paid by the gold utility of the last turn.
    aligned = run.make(
        "ppo",
        train_ppo,
        config=config.ppo,
        policy=first,
        prompts=defer(
            prompts, data_seed=data_seed, count=config.world.ppo_prompts, share="preferences"
        ),
        scorer=utility,
        hook=judge,
        seed=config.seed,
        environment=customer,
    )

    # 4. What it learnt.
    after = run.make("dialogues/ppo", judge_dialogues, policy=aligned, judge=judge)
    report = run.make("report", compare_dialogues, before=before, after=after)
    return run.publish(report)
