"""How much memory do PPO's four roles need on one frozen base?

    python benchmarks/ppo_memory.py            # some 7 minutes on a busy core, 4 GiB
    python benchmarks/ppo_memory.py --quick    # the same with a tiny base, for a look

Each line of the table is a process of its own, on the same base (a random Llama of 160 million
parameters, made here), with the same LoRA rank, sequence length and micro-batch:

- ``sft``: two optimiser steps of TRL's SFTTrainer on the policy alone;
- ``ppo``: one round with policy, reference, value and reward model as adapters on one base: a batch
  of responses sampled, scored and looked at by every role, then learnt from in one step for each
  micro-batch that SFT has;
- ``separate``: the same round with four models, each with a base of its own.

What is counted is resident memory (VmHWM of Linux). "whole" is the largest that it ever was, from
the start of Python, loading included. "net" is what training needs: the largest after the models
are loaded, less what was resident before the first of them was (the interpreter and every library
that is used). A ratio is that of two net figures; that of two whole ones stands beside it. Freed
tensors go back to the system (MALLOC_MMAP_THRESHOLD_), so that resident is what is in use.

By default responses are decoded from a snapshot of the weights (``sampling.snapshot``), which is a
second copy of the base for as long as it is sampled from: faster, and not for those who are short
of memory. The figures are without it; ``fp32_snapshot_ratio`` is with it.

Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Beside this script lies another with the name of a package, and Python looks there first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

MIB = 2**20
PROMPT, ANSWER = 96, 32
#: Responses in a round, and in one pass through a model.
BATCH, MICRO = 4, 2
RANK = 16
SIZES = {
    "full": {"hidden_size": 1024, "num_hidden_layers": 10, "intermediate_size": 2816},
    "quick": {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256},
}
WORDS = {"full": 32_000, "quick": 1_000}
#: What is measured, and how its base is held.
RUNS = (
    ("sft", "lora"),
    ("ppo", "lora"),
    ("ppo-snapshot", "lora"),
    ("separate", "lora"),
    ("sft", "qlora"),
    ("ppo", "qlora"),
    ("separate", "qlora"),
)


# --- What is common to all measurements: the base, the reward model, the prompts. ---------------


def make_models(folder: Path, size: str) -> None:
    """Make a random base with a tokenizer of whole words, and a reward model on it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from plumbline.lm.chat import DEFAULT_TEMPLATE, ROLE_TOKENS
    from plumbline.lm.load import trainable_sequence_scorer
    from plumbline.lm.save import save_model
    from plumbline.lm.tokenizer import load_tokenizer
    from plumbline.lm.tuning import TuningConfig
    from plumbline.runs.artifacts import write_json

    torch.manual_seed(0)
    special = ["<|pad|>", "<|bos|>", "<|eos|>", *ROLE_TOKENS]
    words = {
        word: n for n, word in enumerate([*special, *(f"w{n}" for n in range(WORDS[size] - 7))])
    }
    whole = Tokenizer(models.WordLevel(words, unk_token="<|pad|>"))  # type: ignore[call-arg]
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=whole,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        extra_special_tokens=list(ROLE_TOKENS),
    )
    tokenizer.chat_template = DEFAULT_TEMPLATE
    config = LlamaConfig(
        vocab_size=WORDS[size],
        **SIZES[size],
        num_attention_heads=SIZES[size]["hidden_size"] // 64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    base = folder / "base"
    # In shards, as large models come: a file stays mapped as long as one tensor of it is in use, so
    # one large file would be resident beside the 4-bit weights that were made of it.
    LlamaForCausalLM(config).save_pretrained(base, max_shard_size="32MB")
    tokenizer.save_pretrained(base)
    reward_model = trainable_sequence_scorer(base, TuningConfig(method="lora", rank=RANK))
    (folder / "reward").mkdir()
    save_model(reward_model, load_tokenizer(base), folder / "reward", source=base, card="")
    write_json(folder / "reward/calibration.json", {"mean": 0.0, "std": 1.0, "max_length": None})


def prompts(size: str) -> list[list[dict[str, str]]]:
    """Return a round's prompts, all of one length."""
    from plumbline.seeds import rng

    random = rng(0, "words")
    # The template adds four tokens: begin, role, end of turn, role.
    return [[{"role": "user", "content": _words(random, PROMPT - 4, size)}] for _ in range(BATCH)]


def _words(random: Any, count: int, size: str) -> str:
    return " ".join(f"w{random.randrange(WORDS[size] - 7)}" for _ in range(count))


# --- One measurement, in a process of its own. --------------------------------------------------


class Memory:
    """Resident memory of this process, phase by phase, in bytes."""

    def __init__(self) -> None:
        self.phases: dict[str, int] = {}
        self._whole = 0

    @staticmethod
    def _status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

    @property
    def now(self) -> int:
        """What is resident now."""
        gc.collect()
        return self._status("VmRSS:")

    def end_of(self, phase: str) -> None:
        """Note the largest since the phase before, and start again."""
        peak = self._status("VmHWM:")
        self._whole = max(self._whole, peak)
        self.phases[phase] = max(self.phases.get(phase, 0), peak)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")

    def report(self, libraries: int) -> dict[str, Any]:
        """Return the figures in MiB."""
        training = {k: v for k, v in self.phases.items() if k not in ("libraries", "loading")}
        return {
            "whole": self._whole / MIB,
            "libraries": libraries / MIB,
            "net": (max(training.values()) - libraries) / MIB,
            "net_of_loading": (self.phases["loading"] - libraries) / MIB,
            **{f"net_of_{k}": (v - libraries) / MIB for k, v in training.items()},
        }


def measure(what: str, method: str, folder: Path, size: str) -> dict[str, Any]:
    """Measure one line of the table."""
    import accelerate  # noqa: F401 - resident before anything is counted
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    import torch
    import trl  # noqa: F401
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

    import rl.ppo  # noqa: F401
    import sft.train  # noqa: F401
    from plumbline.quiet import silence_libraries

    silence_libraries()
    torch.manual_seed(0)
    torch.nn.Linear(64, 64)(torch.randn(64, 64)).sum().backward()
    memory = Memory()
    libraries = memory.now
    memory.end_of("libraries")
    if what == "sft":
        _sft(memory, method, folder, size)
    else:
        _ppo(memory, what, method, folder, size)
    return memory.report(libraries)


def _sft(memory: Memory, method: str, folder: Path, size: str) -> None:
    import trl

    from plumbline.data.records import assistant
    from plumbline.dropped import Dropped
    from plumbline.lm.load import trainable_causal_lm
    from plumbline.lm.tokenizer import load_tokenizer
    from plumbline.seeds import rng
    from plumbline.training.config import TrainingConfig
    from sft.tokenized import tokenize

    random = rng(0, "answers")
    tokenizer = load_tokenizer(folder / "base")
    rows = [
        {"messages": [*prompt, assistant(_words(random, ANSWER - 1, size))]}
        for prompt in prompts(size)
    ]
    data = tokenize(rows, tokenizer, 512, Dropped())
    assert {len(ids) for ids in data["input_ids"]} == {PROMPT + ANSWER}
    model = trainable_causal_lm(folder / "base", _tuning(method))
    memory.end_of("loading")
    config = TrainingConfig(batch_size=MICRO, max_steps=BATCH // MICRO)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = config.arguments(Path(scratch), 0) | {"save_strategy": "no"}
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(**arguments, max_length=None, gradient_checkpointing=False),
            train_dataset=data,
            processing_class=tokenizer,
        )
        trainer.train()
    memory.end_of("learning")


def _tuning(method: str) -> Any:
    from plumbline.lm.tuning import TuningConfig

    return (
        TuningConfig(method="full") if method == "full" else TuningConfig(method=method, rank=RANK)
    )


def _ppo(memory: Memory, what: str, method: str, folder: Path, size: str) -> None:
    from plumbline.lm.generation import SamplingConfig
    from plumbline.runs.artifacts import Artifact
    from reward.scorer import RewardModelScorer
    from rl.config import PPOConfig
    from rl.guards import Guard
    from rl.ppo import PPO
    from rl.roles import Roles, make_roles
    from rl.sampler import RolloutSampler

    config = PPOConfig(
        tuning=_tuning(method),
        sampling=SamplingConfig(max_new_tokens=ANSWER, snapshot=what == "ppo-snapshot"),
        iterations=1,
        batch_size=BATCH,
        minibatch_size=MICRO,
        micro_batch_size=MICRO,
        ppo_epochs=1,
    )
    scorer: Any = RewardModelScorer(folder / "reward", batch_size=MICRO)
    if what == "separate":
        roles = Roles(Artifact(folder / "base"), config.tuning, config.value)
        _separate(roles, scorer, folder, config)
    else:
        roles, scorer = make_roles(Artifact(folder / "base"), config, scorer)
        assert scorer.adapter == "reward"
    ppo = PPO(roles, config, Guard(config.guards, roles.policy, folder / "traces", print), seed=0)
    memory.end_of("loading")

    engine = config.rollouts.make_engine(config.sampling)
    sampler = RolloutSampler(engine, roles.policy, prompts(size), config, seed=0)
    episodes = sampler.next(0)
    assert sum(len(e.response_ids) for e in episodes) > 0.9 * BATCH * ANSWER
    memory.end_of("sampling")
    # The log-probabilities of the policy are computed again, too: the most that this may need.
    rollout = ppo.build_rollout(episodes, scorer, recompute=True)
    memory.end_of("scoring")
    metrics = ppo.round(rollout)
    assert metrics["skipped"] == 0
    assert metrics["value_grad_norm"] > 0
    assert all(learner.optimizer.state for learner in ppo.learners.values())
    memory.end_of("learning")


def _separate(roles: Any, scorer: Any, folder: Path, config: Any) -> None:
    """Give reference, value and reward model bases of their own."""
    from plumbline.lm.load import load_causal_lm, load_sequence_scorer
    from plumbline.lm.policy import Policy
    from plumbline.runs.artifacts import Artifact
    from rl.roles import Roles

    quantize = config.tuning.quantized
    reference = load_causal_lm(folder / "base", quantize=quantize).requires_grad_(False)
    roles.reference = Policy(reference, roles.tokenizer, None)
    roles._value_model = Roles(Artifact(folder / "base"), config.tuning, config.value).model
    if quantize:
        scorer.model = _quantized_scorer(folder / "reward")
    else:
        scorer.model = load_sequence_scorer(folder / "reward").eval()


def _quantized_scorer(folder: Path) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    from plumbline.lm.model_folder import source_of
    from plumbline.lm.quantized import nf4_config

    base = AutoModelForSequenceClassification.from_pretrained(
        source_of(folder).base.name_or_path, num_labels=1, quantization_config=nf4_config("auto")
    )
    return PeftModel.from_pretrained(base, folder).eval()


# --- All of them. -------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a tiny base, for a look")
    parser.add_argument("--only", nargs="*", help="only these lines, such as sft-lora ppo-lora")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = "quick" if arguments.quick else "full"
    if arguments.worker:
        what, method, folder = arguments.worker
        print(json.dumps(measure(what, method, Path(folder), size)))
        return

    table: dict[tuple[str, str], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process(["-c", _MAKE, folder, size])
        for what, method in RUNS:
            if arguments.only and f"{what}-{method}" not in arguments.only:
                continue
            start = time.perf_counter()
            flags = ["--quick"] if arguments.quick else []
            output = _in_a_process([__file__, *flags, "--worker", what, method, folder])
            table[what, method] = json.loads(output.splitlines()[-1])
            _say(what, method, table[what, method], time.perf_counter() - start)
    print(json.dumps(_summary(table), indent=None))


_MAKE = (
    "import sys; from pathlib import Path; from benchmarks.ppo_memory import make_models; "
    "make_models(Path(sys.argv[1]), sys.argv[2])"
)


def _in_a_process(arguments: list[str]) -> str:
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # a second thread has buffers of its own, and no need of being fast
        "MALLOC_MMAP_THRESHOLD_": str(MIB),
        "PYTHONPATH": str(root),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def _say(what: str, method: str, numbers: dict[str, Any], seconds: float) -> None:
    parts = ", ".join(f"{name} {value:.0f}" for name, value in numbers.items())
    print(f"{what:>13} {method:>5}  {parts}  ({seconds:.0f} s)", file=sys.stderr, flush=True)


def _summary(table: dict[tuple[str, str], dict[str, Any]]) -> dict[str, float]:
    summary: dict[str, float] = {}
    for (what, method), numbers in table.items():
        held = {"lora": "fp32", "qlora": "nf4"}[method]
        name = f"{held}_{what}".replace("-", "_")
        summary[f"{name}_mib"] = round(numbers["net"], 1)
        summary[f"{name}_whole_mib"] = round(numbers["whole"], 1)
        fair = table.get(("sft", method))
        if what == "sft" or fair is None:
            continue
        ratio = held if what == "ppo" else f"{held}_{what.removeprefix('ppo-')}"
        summary[f"{ratio}_ratio"] = round(numbers["net"] / fair["net"], 3)
        summary[f"{ratio}_whole_ratio"] = round(numbers["whole"] / fair["whole"], 3)
    return summary


if __name__ == "__main__":
    main()
