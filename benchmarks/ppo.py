"""How long a round of PPO and its sampling take, here and with TRL 1.12.0.

    python benchmarks/ppo.py                 # about six minutes
    python benchmarks/ppo.py --quick         # a look: one repeat of the main settings
    python benchmarks/ppo.py --growth        # ours alone, as batches and responses grow
    python benchmarks/ppo.py --device cuda   # models of 0.5 and 1.5 billion parameters, on a GPU

A round is TRL's: 64 prompts of 32 tokens, responses of 64 tokens sampled to their full length (no
end token, so both sides do the same work), a reference model, a reward model and a value model of
the policy's size, full fine-tuning, 4 epochs of one optimiser step each on all 64 rows. The models
are Llamas of 5.26 million random weights. TRL runs in an environment of its own (made once, in the
user's cache). Every setting runs in a process of its own, and the processes take turns, a round
each, so that a slow minute of the machine falls on all of them; the first rounds are warm-up.

Settings are those that users have, one more in each line. "fp32" is the mathematics and the
precision of TRL; "bf16" keeps float32 weights and computes in bfloat16, which TRL's PPO cannot;
"shared" lets policy and value share a trunk, which is another model than TRL's two and is shown
apart.

The last line is one JSON object: ratios, peer's time over ours, higher is better for us.
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

from benchmarks import ppo_sizes
from benchmarks.peer import peer_python, take_turn
from benchmarks.ppo_workers import CLOCK, MICRO_BATCH, Setting

WORKERS = Path(__file__).with_name("ppo_workers.py")
LOG = "workers.log"

TRL = Setting("TRL 1.12.0, fp32", "trl")
BF16: dict[str, Any] = {"learning": "bfloat16", "decoding": "bfloat16"}
LEVERS = (
    Setting("ours, without a snapshot for sampling", "ours", snapshot=False),
    Setting("+ sampling from a snapshot (= fp32)", "ours"),
    Setting("+ learning in bf16", "ours", learning="bfloat16"),
    Setting("+ sampling in bf16 (= bf16, two models)", "ours", **BF16, recompute=False),
    Setting("+ shared trunk (= best)", "ours", **BF16, recompute=False, trunk="shared"),
)
FP32, SEPARATE, BEST = LEVERS[1], LEVERS[3], LEVERS[4]
HF, HF_BF16 = Setting("generate, fp32", "hf"), Setting("generate, bf16", "hf", decoding="bfloat16")
DECODE = Setting("ours, fp32", "decode")
DECODE_BF16 = Setting("ours, bf16", "decode", decoding="bfloat16")
GENERATION = (HF, HF_BF16, DECODE, DECODE_BF16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="main settings, one repeat")
    parser.add_argument("--growth", action="store_true", help="ours alone, larger and longer")
    parser.add_argument("--only", choices=["ppo", "generation"], help="one half")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--trl-micro-batch", type=int, default=MICRO_BATCH)
    parser.add_argument("--threads", type=int, help="of every process; all cores without it")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: seconds of work; with --threads 1, of use where other work disturbs",
    )
    ppo_sizes.add_options(parser)
    options = parser.parse_args()
    if options.device:
        print(json.dumps(ppo_sizes.compare(options)))
        return
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # which the workers inherit
    os.environ.setdefault(CLOCK, options.clock)  # which the workers inherit
    if options.growth:
        print(json.dumps(growth(options)))
        return
    repeats = 1 if options.quick else options.repeats
    result: dict[str, float] = {}
    if options.only != "ppo":
        result |= compare_generation(repeats, options.warm_up)
    if options.only != "generation":
        result |= compare_rounds(options, repeats)
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


def compare_rounds(options: argparse.Namespace, repeats: int) -> dict[str, float]:
    trl = Setting(**{**vars(TRL), "micro_batch": options.trl_micro_batch})
    settings = [trl, *((FP32, SEPARATE, BEST) if options.quick else LEVERS)]
    times = alternate(settings, repeats, options.warm_up)
    print(f"\nA round of PPO: seconds, median of {repeats} (least to most)\n")
    print(
        f"{'':52}{'sampling':>9}{'scoring':>9}{'learning':>9}{'in all':>8}{'':>18}{'TRL / it':>9}"
    )
    base = total(times[trl.name])
    for setting in settings:
        rows = times[setting.name]
        parts = [median(rows, part) for part in ("sampling", "scoring", "learning")]
        spread = sorted(sum(row.values()) for row in rows)
        print(
            f"{setting.name:52}{parts[0]:9.2f}{parts[1]:9.2f}{parts[2]:9.2f}"
            f"{total(rows):8.2f}{f'({spread[0]:.2f} to {spread[-1]:.2f})':>18}"
            f"{base / total(rows):9.2f}"
        )
    return {
        "fp32_total": base / total(times[FP32.name]),
        "separate_total": base / total(times[SEPARATE.name]),
        "best_total": base / total(times[BEST.name]),
    }


def compare_generation(repeats: int, warm_up: int) -> dict[str, float]:
    result = {}
    for ends in (False, True):
        settings = [Setting(**{**vars(setting), "ends": ends}) for setting in GENERATION]
        times = alternate(settings, repeats, warm_up)
        title = "1 token in 32 ends a response" if ends else "responses of full length"
        print(f"\nSampling, 64 prompts, {title}: tokens per second, median (least to most)\n")
        speed = {}
        for setting in settings:
            rates = sorted(row["tokens"] / row["sampling"] for row in times[setting.name])
            speed[setting.name] = statistics.median(rates)
            print(
                f"{setting.name:30}{speed[setting.name]:10,.0f}   "
                f"({rates[0]:,.0f} to {rates[-1]:,.0f})"
            )
        suffix = "_with_ends" if ends else ""
        result |= {
            f"generation{suffix}": speed[DECODE_BF16.name] / speed[HF.name],
            f"generation_fp32{suffix}": speed[DECODE.name] / speed[HF.name],
            f"generation_bf16{suffix}": speed[DECODE_BF16.name] / speed[HF_BF16.name],
        }
    return result


def growth(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second and time by part of our best setting, and of its two-model form."""
    sizes = [(batch, 64) for batch in (8, 16, 32, 64, 128, 256)]
    sizes += [(64, answer) for answer in (128, 256, 512, 1024)]
    if options.quick:
        sizes = [(8, 64), (64, 64), (64, 256)]
    print(f"{'batch':>6}{'answer':>7}{'sampling':>10}{'scoring':>9}{'learning':>9}{'tokens/s':>20}")
    results = {}
    for batch, answer in sizes:
        setting = Setting(**{**vars(BEST), "batch": batch, "answer": answer})
        (row,) = alternate([setting], 1, 1)[setting.name]
        rate, whole = batch * answer / row["sampling"], batch * answer / sum(row.values())
        results[f"{batch}x{answer}"] = {**row, "sampled_per_second": rate, "per_second": whole}
        print(
            f"{batch:6}{answer:7}{row['sampling']:10.2f}{row['scoring']:9.2f}{row['learning']:9.2f}"
            f"{rate:10,.0f} sampled{whole:10,.0f} in all",
            flush=True,
        )
    return results


def median(rows: Sequence[dict[str, float]], part: str) -> float:
    return statistics.median(row[part] for row in rows)


def total(rows: Sequence[dict[str, float]]) -> float:
    return statistics.median(sum(row.values()) for row in rows)


# --- Processes that take turns. -----------------------------------------------------------------


def alternate(
    settings: Sequence[Setting], repeats: int, warm_up: int
) -> dict[str, list[dict[str, float]]]:
    """Let each setting do a round in turn, in a process of its own; return the rounds' times."""
    with tempfile.TemporaryDirectory() as scratch:
        workers = [_start(setting, Path(scratch)) for setting in settings]
        times: dict[str, list[dict[str, float]]] = {setting.name: [] for setting in settings}
        try:
            for turn in range(warm_up + repeats):
                for setting, worker in zip(settings, workers, strict=True):
                    row = take_turn(worker)
                    if turn >= warm_up:
                        times[setting.name].append(row)
        except RuntimeError:
            print((Path(scratch) / LOG).read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    return times


def _start(setting: Setting, scratch: Path) -> subprocess.Popen[str]:
    interpreter = peer_python() if setting.kind == "trl" else Path(sys.executable)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    if setting.kind != "trl":
        environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        [str(interpreter), str(WORKERS), json.dumps(vars(setting))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(scratch / LOG).open("a"),
        text=True,
        cwd=scratch,
        env=environment,
    )


if __name__ == "__main__":
    main()
