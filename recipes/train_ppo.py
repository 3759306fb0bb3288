"""Train a policy by PPO against a reward model, from your model on your prompts.

    plumbline train ppo --model MODEL --data FILE --reward REWARD_MODEL
    plumbline train ppo --model MODEL --data FILE --reward REWARD_MODEL --kl 0.1 --rounds 100

The reward model is one of yours, or any sequence classifier. PPO is that of Ouyang
et al. (2022), section 3.5; your model is the reference, unless you name another. Settings
make its relatives of it (docs/ppo.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import model_validator

from evaluation.config import EvaluationConfig
from evaluation.measures.registry import MeasuresConfig
from evaluation.tasks.sources import TaskFileConfig
from plumbline.config import Check
from plumbline.runs.run import Run
from recipes._data import check_prompts, find_prompts, find_task
from recipes._models import find_model
from recipes._single import (
    EVALUATION,
    SplitPromptsConfig,
    TrainConfig,
    evaluate_trained,
    judge_of,
    other_reference,
    reward_scorers,
)
from rl.config import PPOConfig, ValueConfig
from rl.ppo import train_ppo


class TrainPPOConfig(TrainConfig):
    """Everything that may vary in this recipe."""

    reference: str | None = None
    """What KL holds the policy to, named as the model is; it must have the same vocabulary. Null:
    the model that training starts from."""
    reward: str
    """The reward: a reward model (a folder, a hub name, run:stage, or the id of an artefact), the
    address of a reward server (http://host:8100), or a file of terms (FILE.yaml)."""
    reward_label: str | None = None
    """Where the reward model is a classifier with two labels: the good one, whose log-odds are the
    reward. Null: the second."""
    prompts: SplitPromptsConfig = SplitPromptsConfig()
    """How prompts are read and split."""
    ppo: PPOConfig = PPOConfig(learning_rate=2e-5, value=ValueConfig(learning_rate=1e-4))
    """Proximal policy optimisation."""
    evaluation: EvaluationConfig = EVALUATION
    """How the policy is evaluated."""
    measures: MeasuresConfig = MeasuresConfig()
    """What is measured of its responses."""

    @model_validator(mode="after")
    def _reference_has_an_effect(self) -> TrainPPOConfig:
        if self.reference is not None and self.ppo.kl.reference_decay is not None:
            raise ValueError(
                "reference names a model, but ppo.kl.reference_decay lets the reference follow the "
                "policy. Leave one of the two out"
            )
        return self

    def checks_before_work(self) -> Sequence[Check]:
        """Count the prompts of a file, up to those of one round."""
        if not Path(self.data).is_file():
            return ()
        needed = self.ppo.batch_size // self.ppo.group_size
        return (
            partial(check_prompts, Path(self.data), self.training_prompts, self.data_seed, needed,
                    "ppo.batch_size"),
        )  # fmt: skip

    @property
    def training_prompts(self) -> TaskFileConfig:
        """How the prompts that are trained on are read."""
        return self.prompts.part("train" if self.eval_data is None else "all")


CONFIG = TrainPPOConfig
ESSENTIAL = (
    "model", "data", "eval_data", "reward", "seed", "prompts.columns", "ppo.iterations",
    "ppo.batch_size", "ppo.ppo_epochs", "ppo.learning_rate", "ppo.kl.coefficient",
    "ppo.sampling.temperature", "ppo.sampling.max_new_tokens", "ppo.tuning.method",
    "ppo.advantage.estimator",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "lr": "ppo.learning_rate",
    "epochs": "ppo.ppo_epochs",
    "batch_size": "ppo.batch_size",
    "max_length": "ppo.sampling.max_new_tokens",
    "tuning": "ppo.tuning.method",
    "lora_rank": "ppo.tuning.rank",
    "lora_alpha": "ppo.tuning.alpha",
    "columns": "prompts.columns",
    "kl": "ppo.kl.coefficient",
    "rounds": "ppo.iterations",
    "report_to": "ppo.report_to",
}


def main(run: Run, config: TrainPPOConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    data_seed = config.data_seed
    # 1. The model to start from, the reward, and the prompts.
    start = find_model(run, config.model, "model")
    reference = other_reference(run, config.reference, start)
    scorers = reward_scorers(run, config.reward, config.reward_label)
    prompts = find_prompts(run, config.data, "train", config.training_prompts, data_seed)
    if config.eval_data is None:
        task = find_task(run, config.data, "test", config.prompts.part("held_out"), data_seed)
    else:
        task = find_task(run, config.eval_data, "test", config.prompts.part("all"), data_seed)

    # 2. One judge: held-out prompts, and the same reward model.
    judge = judge_of(
        run, start, task, scorers, config.evaluation, config.measures, data_seed, reference
    )

    # 3. Train, and evaluate against the start.
    name = f"ppo/seed-{config.seed}"
    policy = run.make(
        name,
        train_ppo,
        config=config.ppo,
        policy=start,
        prompts=prompts,
        scorer=scorers[0],
        hook=judge.hook,
        seed=config.seed,
        reference=reference,
    )
    return evaluate_trained(run, name, policy, reference or start, judge)
