"""Align a policy in dialogues: the customers of a help desk answer back while it learns.

From a base model through demonstrations and supervised fine-tuning to PPO in episodes of several
turns. The policy answers; a customer of the embedded world asks again, asks something else, or
leaves; the reward is that of the last response. The policy learns from its own turns alone.

    plumbline run dialogue_ppo --config dialogue

PPO is that of Ziegler et al. (2019), with the whole dialogue as one episode.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from plumbline.runs.calls import defer
from plumbline.runs.run import Run
from plumbline.world.customer import HelpDeskCustomer
from recipes._shared import RLWorldConfig, SFTPolicyConfig, World, train_sft_policy
from rl.config import PPOConfig
from rl.dialogues import DialogueJudge, compare_dialogues, judge_dialogues
from rl.ppo import train_ppo


class DialogueWorldConfig(RLWorldConfig):
    """How much of the embedded world is used, and how long its dialogues are."""

    renamed: ClassVar = {"turns": "max_turns"}

    heldout_prompts: int = Field(200, ge=2)
    """Prompts of the dialogues in which the policy is judged, before and after."""
    max_turns: int = Field(3, ge=1)
    """Most turns of the policy in one dialogue."""


class DialoguePPOConfig(SFTPolicyConfig):
    """Everything that may vary in this recipe."""

    world: DialogueWorldConfig = DialogueWorldConfig()
    """How much of the embedded world is used."""
    ppo: PPOConfig = PPOConfig()
    """Proximal policy optimisation; dialogues are judged with its sampling, too."""


CONFIG = DialoguePPOConfig
ESSENTIAL = (
    "seed", "data_seed", "base.name_or_path", "world.max_turns", "sft.training.learning_rate",
    "ppo.iterations", "ppo.batch_size", "ppo.minibatch_size", "ppo.ppo_epochs",
    "ppo.learning_rate", "ppo.kl.coefficient", "ppo.advantage.estimator",
    "ppo.sampling.max_new_tokens", "ppo.sampling.temperature", "ppo.evaluations",
)  # fmt: skip


def main(run: Run, config: DialoguePPOConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    data_seed = config.data_seed

    # 1. The base model from scratch, and the SFT policy, from demonstrations that end with their
    # first response.
    world = World(run, config)
    sft_policy = train_sft_policy(run, config, world)

    # 2. One judge: the same held-out prompts, the same customer, the gold utility.
    customer = defer(HelpDeskCustomer, data_seed=data_seed, max_turns=config.world.max_turns)
    (utility,) = world.gold
    judge = defer(
        DialogueJudge,
        sampling=config.ppo.sampling,
        prompts=world.prompts("heldout", config.world.heldout_prompts),
        environment=customer,
        scorer=utility,
        data_seed=data_seed,
    )
    before = run.make("dialogues/sft", judge_dialogues, policy=sft_policy, judge=judge)

    # 3. PPO in dialogues, paid by the gold utility of the last turn.
    aligned = run.make(
        "ppo",
        train_ppo,
        config=config.ppo,
        policy=sft_policy,
        prompts=world.rl_prompts(),
        scorer=utility,
        hook=judge,
        seed=config.seed,
        environment=customer,
    )

    # 4. What it learnt.
    after = run.make("dialogues/ppo", judge_dialogues, policy=aligned, judge=judge)
    report = run.make("report", compare_dialogues, before=before, after=after)
    return run.publish(report)
