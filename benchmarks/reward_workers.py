"""Who takes steps of a reward model, for `reward.py`: TRL's RewardTrainer, and ours.

Each runs in a process of its own, started with a setting as JSON, and takes a step for each line
that it reads; then it prints its seconds, and the most memory that it has held.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

from benchmarks.dpo_workers import Setting, _arguments, _callback, _folder, _pairs


def work_trl(setting: Setting, folder: Path, scratch: str) -> None:
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    class Trainer(trl.RewardTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset  # of ids already

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    trainer = Trainer(
        model=model.to(setting.device),
        args=trl.RewardConfig(
            **_arguments(setting, scratch),
            max_length=None,
            gradient_checkpointing=False,
            center_rewards_coefficient=0.01,
        ),
        train_dataset=Dataset.from_list(
            [
                {
                    "chosen_ids": pair["prompt_ids"] + pair["chosen_ids"],
                    "rejected_ids": pair["prompt_ids"] + pair["rejected_ids"],
                }
                for pair in _pairs(setting)
            ]
        ),
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[_callback(setting)],
    )
    trainer.train()


def work_ours(setting: Setting, folder: Path, scratch: str) -> None:
    from plumbline.lm.load import trainable_sequence_scorer
    from plumbline.lm.precision import compute_precision
    from plumbline.lm.tokenizer import load_tokenizer
    from plumbline.lm.tuning import TuningConfig
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage
    from plumbline.training.config import TrainingConfig
    from plumbline.training.pairs import EncodedPair
    from reward.config import RewardConfig
    from reward.train import make_trainer

    config = RewardConfig(
        tuning=TuningConfig(method="full"),
        training=TrainingConfig(
            learning_rate=1e-5, max_steps=100_000, batch_size=setting.pairs, bf16=setting.bf16,
            log_every=100_000, checkpoint_every=100_000,
        ),
    )  # fmt: skip
    stage = Stage(Path(scratch) / "stage", Reporter(quiet=True))
    pairs = [EncodedPair({}, "", *pair.values()) for pair in _pairs(setting)]
    with compute_precision("model", "cpu"):
        model, tokenizer = trainable_sequence_scorer(folder, config.tuning), load_tokenizer(folder)
        trainer = make_trainer(stage, model, tokenizer, pairs, config, "random pairs", 0)
        trainer.add_callback(_callback(setting))
        trainer.train()


if __name__ == "__main__":
    requested = Setting(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as place:
        model_folder = _folder(requested, Path(place) / "model")
        (work_trl if requested.kind == "trl" else work_ours)(requested, model_folder, place)
