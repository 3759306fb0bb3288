"""Train a policy by supervised fine-tuning, from your model on your demonstrations.

    plumbline train sft --model MODEL --data FILE
    plumbline train sft --model MODEL --data FILE --lora-rank 8 --lr 1e-4 --epochs 2
    plumbline train sft --model RUN:sft --data NEW_FILE --set replay='[OLD_FILE]'

The loss is on what the assistant says, as in Ouyang et al. (2022), section 3.5.
"""

from __future__ import annotations

from typing import Any

from plumbline.lm.tuning import TuningConfig
from plumbline.runs.run import Run
from plumbline.training.config import TrainingConfig
from recipes._data import find_demonstrations
from recipes._models import find_model
from recipes._single import TrainConfig
from sft.config import DemonstrationsConfig, SFTConfig
from sft.train import train_sft


class TrainSFTConfig(TrainConfig):
    """Everything that may vary in this recipe."""

    demonstrations: DemonstrationsConfig = DemonstrationsConfig()
    """How demonstrations are read, cleaned and split."""
    replay: tuple[str, ...] = ()
    """Demonstrations of other tasks that are trained along, such as what the model learnt before:
    files, datasets or artefacts, as in ``data``. sft.other_tasks says how."""
    sft: SFTConfig = SFTConfig(
        tuning=TuningConfig(method="lora"),
        max_length=1024,
        training=TrainingConfig(learning_rate=2e-4, epochs=1, batch_size=8),
    )
    """Supervised fine-tuning."""


CONFIG = TrainSFTConfig
ESSENTIAL = (
    "model", "data", "eval_data", "seed", "demonstrations.columns",
    "demonstrations.held_out_share", "sft.tuning.method", "sft.tuning.rank", "sft.max_length",
    "sft.training.learning_rate", "sft.training.epochs", "sft.training.batch_size",
    "sft.training.gradient_accumulation", "sft.training.checkpoint_every",
    "sft.training.report_to",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "lr": "sft.training.learning_rate",
    "epochs": "sft.training.epochs",
    "batch_size": "sft.training.batch_size",
    "max_length": "sft.max_length",
    "tuning": "sft.tuning.method",
    "lora_rank": "sft.tuning.rank",
    "lora_alpha": "sft.tuning.alpha",
    "report_to": "sft.training.report_to",
    "columns": "demonstrations.columns",
}


def main(run: Run, config: TrainSFTConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Demonstrations, and the model to start from.
    demonstrations = find_demonstrations(
        run, config.data, config.eval_data, config.demonstrations, config.data_seed
    )
    base = find_model(run, config.model, "model")
    others = {
        f"task-{number}": find_demonstrations(
            run, data, None, config.demonstrations, config.data_seed, f"replay-{number}"
        )
        for number, data in enumerate(config.replay, 1)
    }

    # 2. Train; the loss on held-out demonstrations says how well.
    policy = run.make(
        "sft",
        train_sft,
        config=config.sft,
        base=base,
        demonstrations=demonstrations,
        seed=config.seed,
        **({"others": others} if others else {}),
    )
    return dict(policy.metrics)
