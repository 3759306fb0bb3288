"""How long threads should spin for one another, on a quiet machine and on a busy one.

    python benchmarks/busy.py                # 15 minutes on two cores
    python benchmarks/busy.py --rounds 3     # fewer alternating runs

torch's parallel loops are OpenMP's, and its threads spin for a while at the end of each before they
sleep. A spinning thread keeps its core from the thread whose work it waits for, so on a busy
machine (shared cores, a container's quota, a laptop) a run takes many times as long. How long they
spin is read from GOMP_SPINCOUNT when torch is imported; `plumbline.runs.spinning` chooses it.

Each measurement is a process of its own, since the count is read once. Settings alternate, so that
what else happens on the machine meets all alike. Beside them run nothing (quiet), two processes
that never rest (busy), or four that train with as many threads as there are cores (crowded).
Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = ("default", "0", "100", "1000", "3000", "10000", "30000", "plumbline")
CROWDS = ("quiet", "busy", "crowded")

#: 150 passes through a small network: many short parallel loops, as small models make them.
NETWORK = """
import time, torch
torch.manual_seed(0)
layers = [m for _ in range(20) for m in (torch.nn.Linear(128, 128), torch.nn.ReLU())]
model, x = torch.nn.Sequential(*layers), torch.randn(256, 128)
def work(times):
    for _ in range(times):
        model(x).square().mean().backward()
work(10)
started = time.perf_counter()
work(PASSES)
print(time.perf_counter() - started)
"""
#: Ten training steps of a model like the embedded one.
DECODER = """
import time, torch
from transformers import Qwen3Config, Qwen3ForCausalLM
torch.manual_seed(0)
model = Qwen3ForCausalLM(Qwen3Config(
    vocab_size=768, hidden_size=128, intermediate_size=384, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=4, head_dim=32, max_position_embeddings=512,
))
optimizer = torch.optim.AdamW(model.parameters())
ids = torch.randint(0, 768, (16, 128))
def work(times):
    for _ in range(times):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
work(2)
started = time.perf_counter()
work(PASSES)
print(time.perf_counter() - started)
"""
WORK = {"network": NETWORK.replace("PASSES", "150"), "decoder": DECODER.replace("PASSES", "10")}
BUSY = "while True: pass"
#: As a run does before its process server starts.
CHOOSE = """
import time
from plumbline.runs import spinning
before = spinning.Moment.now()
time.sleep(1)
spinning.choose(since=before)
"""
CROWD = NETWORK.replace("PASSES", "10**9")


def environment(setting: str) -> dict[str, str]:
    """Return the environment of a process that spins so long."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    }
    return clean if setting in ("default", "plumbline") else clean | {"GOMP_SPINCOUNT": setting}


def measure(work: str, setting: str, limit: float) -> float:
    """Return the seconds of one process's work; ``limit`` where it took longer."""
    code = (CHOOSE if setting == "plumbline" else "") + WORK[work]
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(setting), capture_output=True, text=True, check=True, timeout=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return limit
    return float(done.stdout)


@contextmanager
def beside(crowd: str) -> Iterator[None]:
    """Keep the machine busy while the block runs."""
    count = {"quiet": 0, "busy": 2, "crowded": 4}[crowd]
    code = BUSY if crowd == "busy" else CROWD
    others = [
        subprocess.Popen([sys.executable, "-c", code], env=environment("default"))
        for _ in range(count)
    ]
    try:
        if others:
            time.sleep(5)  # until they have imported what they need
        yield
    finally:
        for process in others:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7, help="alternating runs of each (7)")
    parser.add_argument("--limit", type=float, default=120, help="most seconds of one run (120)")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="spin counts, with commas")
    parser.add_argument("--crowds", default=",".join(CROWDS), help="what runs beside, with commas")
    parser.add_argument("--work", default=",".join(WORK), help="what is done, with commas")
    options = parser.parse_args()
    settings = options.settings.split(",")
    seconds: dict[str, dict[str, dict[str, list[float]]]] = {}
    for crowd in options.crowds.split(","):
        with beside(crowd):
            for work in options.work.split(","):
                times: dict[str, list[float]] = {setting: [] for setting in settings}
                for number in range(options.rounds):
                    order = settings if number % 2 == 0 else settings[::-1]
                    for setting in order:
                        times[setting].append(round(measure(work, setting, options.limit), 3))
                seconds.setdefault(crowd, {})[work] = times
                shown = "  ".join(f"{s} {statistics.median(t):.2f}" for s, t in times.items())
                print(f"{crowd}, {work}: {shown}", file=sys.stderr, flush=True)
    result = {
        "benchmark": "busy",
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "seconds": seconds,
        "medians": {
            crowd: {
                work: {setting: statistics.median(values) for setting, values in times.items()}
                for work, times in works.items()
            }
            for crowd, works in seconds.items()
        },
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
