"""How long a step of a reward model takes, and how much memory, here and with TRL.

    python benchmarks/reward.py                  # about four minutes on two cores
    python benchmarks/reward.py --quick          # a look: one turn of each
    python benchmarks/reward.py --device cuda    # models of 0.5 and 1.5 B random weights

A step is 8 pairs, full fine-tuning with AdamW, of a Llama of 5.26 million random weights as a
sequence classifier. "256_64" are tokens of the prompt and of each response. TRL is the version that
the project has installed, with activation checkpointing off, which is its faster way. "bf16" is
autocast over float32 weights on both sides. Every setting runs in a process of its own, and the
processes take turns, a step each; the first steps are warm-up.

The last line is one JSON object: ratios, TRL's time (or memory) over ours, higher is better for us.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

from benchmarks.dpo import alternate, spread
from benchmarks.dpo_workers import Setting
from benchmarks.ppo_workers import CLOCK

WORKERS = Path(__file__).with_name("reward_workers.py")
#: Each ratio's name, and what both sides do.
CASES: dict[str, dict[str, Any]] = {
    f"{number}_{prompt}_{answer}": {"prompt": prompt, "answer": answer, "bf16": number == "bf16"}
    for number in ("fp32", "bf16")
    for prompt, answer in ((128, 64), (256, 64), (512, 64), (32, 128))
}
GPU_CASES: dict[str, dict[str, Any]] = {
    f"bf16_256_64_{model}": {
        "prompt": 256, "answer": 64, "bf16": True, "device": "cuda", "model": model
    }
    for model in ("0.5B", "1.5B")
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one turn of each")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="*", choices=[*CASES], help="some of the cases")
    parser.add_argument("--repeats", type=int, default=5)
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
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    cases = GPU_CASES if options.device == "cuda" else CASES
    if options.only:
        cases = {name: CASES[name] for name in options.only}
    print(
        f"{'a step of 8 pairs':22}{'TRL, s':>18}{'ours, s':>18}{'ratio':>7}{'TRL / ours, MB':>18}"
    )
    ratios: dict[str, float] = {}
    memory: list[float] = []
    for name, what in cases.items():
        settings = [Setting(f"{name}, {kind}", kind, **what) for kind in ("trl", "ours")]
        repeats, warm_up = (1, 1) if options.quick else (options.repeats, 2)
        trl, ours = alternate(settings, repeats, warm_up, WORKERS)
        medians = [statistics.median(turn["seconds"] for turn in turns) for turns in (trl, ours)]
        ratios[name] = medians[0] / medians[1]
        megabytes = [turns[-1]["megabytes"] for turns in (trl, ours)]
        memory.append(megabytes[0] / megabytes[1])
        shown = " / ".join(f"{held:.0f}" for held in megabytes)
        print(
            f"{name:22}{spread(trl):>18}{spread(ours):>18}{ratios[name]:7.2f}{shown:>18}",
            flush=True,
        )
    print(json.dumps({name: round(x, 3) for name, x in {**ratios, "memory": min(memory)}.items()}))


if __name__ == "__main__":
    main()
