"""How long a step of DPO takes, and how much memory, here and with TRL.

    python benchmarks/dpo.py                  # about five minutes on two cores
    python benchmarks/dpo.py --quick          # a look: one turn of each
    python benchmarks/dpo.py --curve          # over the prompt's length, 32 to 2,048 tokens
    python benchmarks/dpo.py --device cuda    # models of 0.5 and 1.5 B random weights

A step is 8 pairs, full fine-tuning with AdamW, of a Llama of 5.26 million random weights. "256/64"
are tokens of the prompt and of each response; the reference's log-probabilities are computed in
the step, or cached. TRL is the version that the project has installed, with activation
checkpointing off, which is its faster way. "bf16" is autocast over float32 weights on both sides.
Every setting runs in a process of its own, and the processes take turns, a step each, so that a
slow minute of the machine falls on all of them; the first steps are warm-up.

The last line is one JSON object: ratios, TRL's time (or memory) over ours, higher is better for us.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

from benchmarks.dpo_workers import Setting
from benchmarks.peer import take_turn
from benchmarks.ppo_workers import CLOCK

WORKERS = Path(__file__).with_name("dpo_workers.py")
LONG, SHORT = {"prompt": 256, "answer": 64}, {"prompt": 32, "answer": 128}
#: Each ratio's name, and what both sides do.
CASES: dict[str, dict[str, Any]] = {
    "fp32_256_64": {**LONG},
    "bf16_256_64": {**LONG, "bf16": True},
    "cached_256_64": {**LONG, "bf16": True, "cached": True},
    "fp32_32_128": {**SHORT, "cached": True},
    "bf16_32_128": {**SHORT, "bf16": True, "cached": True},
}
CURVE = (32, 64, 128, 256, 512, 1024, 2048)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one turn of each")
    parser.add_argument("--curve", action="store_true", help="over the prompt's length")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="*", choices=[*CASES], help="some of the cases")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--threads", type=int, help="of every process; all cores without it")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: seconds of work; with --threads 1, of use where other work disturbs",
    )
    options = parser.parse_args()
    os.environ[CLOCK] = options.clock  # which the workers inherit
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # which the workers inherit
    if options.device == "cuda" and not _has_gpu():
        parser.error("--device cuda: torch sees no GPU here. Leave --device out")
    repeats, warm_up = (1, 1) if options.quick else (options.repeats, options.warm_up)
    print(
        f"{'a step of 8 pairs':22}{'TRL, s':>18}{'ours, s':>18}{'ratio':>7}{'TRL / ours, MB':>18}"
    )
    ratios: dict[str, float | None] = {}
    memory: list[float] = []
    for name, what in _cases(options).items():
        settings = [Setting(f"{name}, {kind}", kind, **what) for kind in ("trl", "ours")]
        try:
            trl, ours = alternate(settings, repeats, warm_up)
        except (
            RuntimeError,
            BrokenPipeError,
        ) as error:  # other cases still run
            print(f"{name:22} failed: {error}", flush=True)
            ratios[name] = None
            continue
        ratio = ratios[name] = _median(trl, "seconds") / _median(ours, "seconds")
        memory.append(trl[-1]["megabytes"] / ours[-1]["megabytes"])
        shown = f"{trl[-1]['megabytes']:.0f} / {ours[-1]['megabytes']:.0f}"
        print(
            f"{name:22}{spread(trl):>18}{spread(ours):>18}{ratio:7.2f}{shown:>18}",
            flush=True,
        )
    results = {**ratios, "memory": min(memory) if memory else None}
    print(json.dumps({name: x if x is None else round(x, 3) for name, x in results.items()}))
    if None in results.values():
        sys.exit(1)


def _cases(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return what is measured: each ratio's name, and what both sides do."""
    on_gpu = options.device == "cuda"
    device: dict[str, Any] = {"device": "cuda", "model": "0.5B"} if on_gpu else {}
    if options.curve:
        return {
            f"{number}_{prompt}_64": {
                "prompt": prompt, "answer": 64, "bf16": number == "bf16", **device,
            }
            for number in (("bf16",) if on_gpu else ("fp32", "bf16"))
            for prompt in CURVE
        }  # fmt: skip
    if on_gpu:
        return {
            f"bf16_256_64_{model}": {**LONG, "bf16": True, **device, "model": model}
            for model in ("0.5B", "1.5B")
        }
    return {name: CASES[name] for name in options.only or CASES}


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _median(turns: Sequence[dict[str, float]], name: str) -> float:
    return statistics.median(turn[name] for turn in turns)


def spread(turns: Sequence[dict[str, float]]) -> str:
    """Return median, least and most seconds of turns, for people to read."""
    seconds = sorted(turn["seconds"] for turn in turns)
    return f"{statistics.median(seconds):.3f} ({seconds[0]:.2f}-{seconds[-1]:.2f})"


def alternate(
    settings: Sequence[Setting], repeats: int, warm_up: int, script: Path = WORKERS
) -> list[list[dict[str, float]]]:
    """Let each setting take a turn after the other; return what each said of its turns.

    Each has a process of its own, of ``script``.
    """
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "workers.log"
        workers = [_start(script, setting, log) for setting in settings]
        turns: list[list[dict[str, float]]] = [[] for _ in settings]
        try:
            for turn in range(warm_up + repeats):
                for worker, own_turns in zip(workers, turns, strict=True):
                    reply = take_turn(worker)
                    if turn >= warm_up:
                        own_turns.append(reply)
        except (RuntimeError, BrokenPipeError):
            print(log.read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    return turns


def _start(script: Path, setting: Setting, log: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(script), json.dumps(vars(setting))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("a"),
        text=True,
        env=environment,
    )


if __name__ == "__main__":
    main()
