"""Models of random weights in the shapes of Qwen2.5, and clocks, for benchmarks on a GPU."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SHAPES = {
    "0.5b": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
    },
    "1.5b": {
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
    },
}


def config_of(size: str, vocabulary: int, **more: Any) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        **SHAPES[size],
        **more,
    )


def policy_of(size: str, vocabulary: int, seed: int = 0) -> Any:
    import torch
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(seed)
    with torch.device(device()):
        model = Qwen2ForCausalLM(config_of(size, vocabulary)).to(torch.bfloat16)
    model.generation_config.eos_token_id = None
    return model


def scorer_of(size: str, vocabulary: int, seed: int) -> Any:
    import torch
    from transformers import Qwen2ForSequenceClassification

    torch.manual_seed(seed)
    with torch.device(device()):
        return Qwen2ForSequenceClassification(config_of(size, vocabulary, num_labels=1)).to(
            torch.bfloat16
        )


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def tokenizer_of(vocabulary: int) -> Any:
    """Return a tokenizer of single bytes, whose other tokens stand for no text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"<{n}>" for n in range(len(names), vocabulary)]
    vocab = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )


def texts_of(vocabulary: int, rows: int, length: int) -> list[list[int]]:
    """Return random tokens, [rows][length]."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, vocabulary, (rows, length), generator=generator).tolist()


def clock() -> float:
    """Return seconds, after all that the GPU has to do."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak() -> float:
    """Return the operations per second of a large matrix product in bfloat16."""
    import torch

    size = 8192 if device() == "cuda" else 256
    a, b = (torch.randn(size, size, device=device(), dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(8):
        start = clock()
        for _ in range(4):
            a @ b
        times.append((clock() - start) / 4)
    return 2 * size**3 / sorted(times)[2]


def free() -> None:
    import torch

    gc.collect()
    if device() == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if device() == "cuda" else 0.0


def say(**result: Any) -> None:
    """Print a line that another process reads."""
    print(json.dumps(result), flush=True)


def wait_for_turn() -> None:
    """Wait until the process ``BENCHMARK_AFTER`` has ended, so that imports cost a GPU nothing.

    From then on there are ``BENCHMARK_SECONDS``, after which this process is ended.
    """
    before = os.environ.pop("BENCHMARK_AFTER", None)
    while before is not None and _runs(before):
        time.sleep(0.02)
    signal.alarm(int(os.environ.pop("BENCHMARK_SECONDS", "0")))


def _runs(process: str) -> bool:
    try:
        status = Path("/proc", process, "stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@contextmanager
def folder_of_model(size: str, vocabulary: int) -> Iterator[Path]:
    """Keep a model with its tokenizer in a folder for a while, in memory where that is possible."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 16 << 30
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as folder:
        policy_of(size, vocabulary).save_pretrained(folder)
        tokenizer_of(vocabulary).save_pretrained(folder)
        yield Path(folder)


def compilation() -> dict[str, float]:
    """Return how many graphs torch has compiled in this process, and in how many seconds."""
    from torch._dynamo.utils import compile_times, counters

    names, values = compile_times(repr="csv", aggregate=True)
    times = dict(zip(names, values, strict=False))
    seconds = float(times.get("_compile.compile_inner", 0.0))
    return {"graphs": float(counters["stats"]["unique_graphs"]), "compile_seconds": seconds}
