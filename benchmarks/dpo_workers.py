"""Who takes steps of DPO, for `dpo.py`: TRL's DPOTrainer, and ours.

Each runs in a process of its own, started with a setting as JSON, and takes some steps for each
line that it reads; then it prints their seconds, and the most memory that it has held.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

from benchmarks.ppo_workers import SHAPE, VOCABULARY, _tokenizer, clock

#: Models for a GPU, of random weights: about 0.5 and 1.5 thousand million parameters.
GPU_SHAPES = {
    "0.5B": {
        "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "1.5B": {
        "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One way of taking a step."""

    name: str
    kind: str  # trl or ours
    prompt: int = 256
    answer: int = 64
    cached: bool = False  # reference's log-probabilities
    bf16: bool = False
    pairs: int = 8
    steps: int = 1  # in a turn
    device: str = "cpu"
    model: str = "5M"


def _folder(setting: Setting, folder: Path) -> Path:
    """Save the model that both sides train, with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {**SHAPE, "max_position_embeddings": 4096}  # the curve's longest prompt, and more
    if setting.model != "5M":
        shape |= GPU_SHAPES[setting.model]
    model = LlamaForCausalLM(LlamaConfig(**shape))
    model.generation_config.eos_token_id = 1
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _pairs(setting: Setting) -> list[dict[str, list[int]]]:
    """Return random pairs, as many as any run takes."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> list[int]:
        drawn: list[int] = torch.randint(2, VOCABULARY, (length,), generator=generator).tolist()
        return drawn

    return [
        {
            "prompt_ids": ids(setting.prompt),
            "chosen_ids": ids(setting.answer),
            "rejected_ids": ids(setting.answer),
        }
        for _ in range(8 * setting.pairs)
    ]


def _arguments(setting: Setting, scratch: str) -> dict[str, Any]:
    return {
        "output_dir": scratch, "max_steps": 100_000, "report_to": "none", "save_strategy": "no",
        "per_device_train_batch_size": setting.pairs, "bf16": setting.bf16, "disable_tqdm": True,
        "logging_steps": 100_000, "learning_rate": 1e-5, "use_cpu": setting.device == "cpu",
    }  # fmt: skip


def _callback(setting: Setting) -> Any:
    """Return what holds a trainer up until it is its turn, and says how long its steps took."""
    import torch
    from transformers import TrainerCallback

    class Turns(TrainerCallback):  # type: ignore[misc]
        started, done = 0.0, 0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if self.done % setting.steps == 0:
                if not sys.stdin.readline():
                    sys.exit()
                self.started = clock()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.done += 1
            if self.done % setting.steps == 0:
                if setting.device == "cuda":
                    torch.cuda.synchronize()
                    peak = torch.cuda.max_memory_allocated() / 2**20
                else:
                    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                seconds = clock() - self.started
                print(json.dumps({"seconds": seconds, "megabytes": peak}), flush=True)

    return Turns()


def work_trl(setting: Setting, folder: Path, scratch: str) -> None:
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    class Trainer(trl.DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset  # of ids already

    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(folder).to(setting.device),
        args=trl.DPOConfig(
            **_arguments(setting, scratch),
            max_length=None,
            gradient_checkpointing=False,
            precompute_ref_log_probs=setting.cached,
        ),
        train_dataset=Dataset.from_list(_pairs(setting)),
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[_callback(setting)],
    )
    trainer.train()


def work_ours(setting: Setting, folder: Path, scratch: str) -> None:
    from plumbline.lm.precision import compute_precision
    from plumbline.lm.tokenizer import load_tokenizer
    from plumbline.lm.tuning import TuningConfig
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage
    from plumbline.training.config import TrainingConfig
    from preference.batches import PairExample
    from preference.config import DPOConfig, ReferenceConfig
    from preference.dpo import make_trainer
    from preference.reference import PolicyAndReference

    tuning = TuningConfig(method="full")
    config = DPOConfig(
        tuning=tuning,
        reference=ReferenceConfig(kind="cached" if setting.cached else "computed"),
        training=TrainingConfig(
            learning_rate=1e-5, max_steps=100_000, batch_size=setting.pairs, bf16=setting.bf16,
            log_every=100_000, checkpoint_every=100_000,
        ),
    )  # fmt: skip
    stage = Stage(Path(scratch) / "stage", Reporter(quiet=True))
    with compute_precision("model", "cpu"):
        roles = PolicyAndReference(folder, tuning, load_tokenizer(folder))
        examples = [PairExample(**pair) for pair in _pairs(setting)]
        trainer = make_trainer(stage, roles, examples, config, 0)
        trainer.add_callback(_callback(setting))
        trainer.train()


if __name__ == "__main__":
    requested = Setting(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as place:
        model_folder = _folder(requested, Path(place) / "model")
        (work_trl if requested.kind == "trl" else work_ours)(requested, model_folder, place)
