"""Is the memory that ``plumbline plan`` states what a training takes? Measured on a CPU.

    python benchmarks/memory_plan.py            # some minutes on a quiet core, up to 3 GiB
    python benchmarks/memory_plan.py --quick    # small models, for a look

Each line is a process of its own: a training stage with a random model of the kind of Qwen3 in
float32, rows nearly as long as max_length, two steps, with its checkpoint and its artefact. What is
measured is the largest resident memory (VmHWM of Linux) less what was resident before the model was
loaded: the interpreter and the libraries, which a training of a tiny model has loaded before. Freed
tensors go back to the system (MALLOC_MMAP_THRESHOLD_), so that resident is what is in use.

The last line is one JSON object: for each training planned and measured MiB, and their ratio.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

MIB = 2**20
SIZES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
    "30M": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1536},
    "100M": {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 2304},
}
#: Part, size, tuning, rows in a pass, tokens of a row.
CASES = (
    ("sft", "30M", "full", 8, 256),
    ("sft", "100M", "full", 4, 256),
    ("sft", "100M", "lora", 4, 256),
    ("dpo", "30M", "full", 4, 256),
    ("dpo", "100M", "lora", 2, 256),
    ("reward", "30M", "full", 4, 256),
    ("reward", "100M", "lora", 2, 256),
    ("ppo", "100M", "lora", 4, 256),
    ("ppo", "30M", "full", 4, 256),
)
QUICK = (("sft", "tiny", "full", 8, 256), ("dpo", "30M", "lora", 4, 128))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(*json.loads(options.case))))
        return
    result = {}
    for case in QUICK if options.quick else CASES:
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--case", json.dumps(case)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        part, size, method, rows, tokens = case
        name = f"{part}/{size}/{method}/{rows}x{tokens}"
        result[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, json.dumps(result[name]), flush=True)
    print(json.dumps(result))


def measure(part: str, size: str, method: str, rows: int, tokens: int) -> dict[str, float]:
    """Return planned and measured MiB of one training."""
    with tempfile.TemporaryDirectory() as scratch:
        train(Path(scratch) / "warm", part, "tiny", method, 2, 64)
        model = make_model(Path(scratch) / "model", size)
        gc.collect()
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins again
        train(Path(scratch) / "real", part, size, method, rows, tokens, model)
        measured = memory("VmHWM") - before
        planned = plan_of(part, model, method, rows, tokens)
    return {
        "planned": round(planned / MIB, 1),
        "measured": round(measured / MIB, 1),
        "ratio": round(planned / measured, 3),
    }


def memory(name: str) -> int:
    """Return a figure of this process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}: this needs Linux.")


def config_of(part: str, method: str, rows: int, tokens: int) -> Any:
    """Return the settings of a training with rows of exactly so many tokens."""
    from plumbline.lm.generation import SamplingConfig
    from plumbline.lm.tuning import TuningConfig
    from plumbline.training.config import TrainingConfig
    from preference.config import DPOConfig
    from reward.config import RewardConfig
    from rl.config import PPOConfig
    from sft.config import SFTConfig

    tuning = TuningConfig(method=method)  # type: ignore[arg-type]
    training = TrainingConfig(max_steps=2, batch_size=rows, log_every=1, checkpoint_every=1)
    if part == "sft":
        return SFTConfig(tuning=tuning, max_length=tokens, training=training)
    if part == "reward":
        return RewardConfig(tuning=tuning, max_length=tokens, training=training)
    if part == "dpo":
        return DPOConfig(tuning=tuning, max_length=tokens, training=training, evaluations=0)
    return PPOConfig(
        tuning=tuning, iterations=1, batch_size=rows, minibatch_size=rows, micro_batch_size=rows,
        ppo_epochs=2, evaluations=0, checkpoint_every=1,
        sampling=SamplingConfig(max_new_tokens=tokens // 2),
    )  # fmt: skip


def plan_of(part: str, model: Path, method: str, rows: int, tokens: int) -> int:
    """Return what ``plumbline plan --gpu cpu`` says, in bytes."""
    from types import SimpleNamespace

    from plumbline.commands.plan import Setting, trainings_of
    from plumbline.commands.planned_model import shape_of
    from plumbline.runs.shardings import SHARDINGS
    from plumbline.training.memory_plan import memory_of

    recipe = type("Recipe", (SimpleNamespace,), {"model_fields": {part: None}})
    values = recipe(**{part: config_of(part, method, rows, tokens)})
    setting = Setting(on_cpu=True, processes=1, prompt_tokens=tokens - tokens // 2)
    ((_, work),) = trainings_of(values, shape_of(str(model), None)[0], setting)
    return memory_of(work.training, SHARDINGS["ddp"]).total


class Letters:
    """A scorer without a model."""

    name = "letters"

    def score(self, prompts: Any, responses: Any) -> list[float]:
        return [float(len(response) % 7) for response in responses]


def train(
    folder: Path, part: str, size: str, method: str, rows: int, tokens: int, model: Any = None
) -> None:
    """Run the stage of a training."""
    from plumbline.data.records import assistant, user, write_dataset
    from plumbline.runs.artifacts import Artifact
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage
    from preference.dpo import train_dpo
    from reward.train import train_reward_model
    from rl.ppo import train_ppo
    from sft.train import train_sft

    class Folder(Artifact):
        id = property(lambda self: self.path.name)  # type: ignore[assignment]

    model = model or make_model(folder / "model", size)
    stage = Stage(folder / "stage", Reporter(quiet=True))
    config = config_of(part, method, rows, tokens)
    words = [f"w{2 + n}" for n in range(tokens)]
    # The template adds the role's tokens and the end; what is left is found by trying.
    half, count = tokens // 2, tokens - 24
    if part == "ppo":
        prompts = [[user(" ".join(words[n : n + half - 8]))] for n in range(rows)]
        train_ppo(
            stage, config=config, policy=Folder(model), prompts=prompts, scorer=Letters(),
            hook=lambda *_: {}, seed=0,
        )  # fmt: skip
        return
    prompt, responses = words[: count // 2], [words[count // 2 : count], words[3 : 3 + count // 2]]
    data = folder / "data"
    chosen, rejected = ([assistant(" ".join(text))] for text in responses)
    prompt_messages = [user(" ".join(prompt))]
    if part == "sft":
        lines: Any = [
            {"messages": [*prompt_messages, *chosen], "form": "single_turn"}
            for _ in range(2 * rows)
        ]
        write_dataset(
            data,
            {"train": lines, "test": lines[:1]},
            kind="messages",
            title="",
            description="",
        )
        train_sft(stage, config=config, base=Folder(model), demonstrations=Folder(data), seed=0)
        return
    lines = [
        {"pair_id": str(n), "prompt": prompt_messages, "chosen": chosen, "rejected": rejected}
        for n in range(2 * rows)
    ]
    write_dataset(
        data, {"train": lines, "test": lines[:1]}, kind="preference", title="", description=""
    )
    if part == "reward":
        pairs = Folder(data)
        train_reward_model(stage, config=config, policy=Folder(model), preferences=pairs, seed=0)
        return
    train_dpo(
        stage, config=config, policy=Folder(model), preferences=Folder(data),
        hook=lambda *_: {}, seed=0,
    )  # fmt: skip


def make_model(folder: Path, size: str) -> Path:
    """Save a random model, with a tokenizer of whole words."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from benchmarks.ppo_workers import VOCABULARY, _tokenizer
    from plumbline.lm.chat import DEFAULT_TEMPLATE

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, num_attention_heads=8, num_key_value_heads=4,
        head_dim=SIZES[size]["hidden_size"] // 8, tie_word_embeddings=True,
        max_position_embeddings=2048, eos_token_id=1, pad_token_id=0, bos_token_id=None,
        **SIZES[size],
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer = _tokenizer()
    tokenizer.chat_template = DEFAULT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
