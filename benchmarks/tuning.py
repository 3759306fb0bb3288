"""Every tuning method on the embedded world, and what replay keeps of an old task.

    python benchmarks/tuning.py --base FOLDER                 # one row per method
    python benchmarks/tuning.py --base FOLDER --methods lora dora
    python benchmarks/tuning.py --base FOLDER --replay        # with and without replay, five seeds

FOLDER is a base model of the embedded world (the stage ``base`` of a run of dpo_vs_ppo). Each
method trains on the same demonstrations for the same steps, in a process of its own, whose peak
memory is the process's. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

#: Peak learning rates; what has few weights needs larger steps.
RATES = {
    "full": 1e-3, "last_layers": 1e-3, "progressive": 1e-3, "lora": 3e-3, "qlora": 3e-3,
    "rslora": 1e-3, "dora": 3e-3, "pissa": 1e-3, "ia3": 2e-2, "bottleneck": 3e-3,
    "prefix": 1e-2, "prompt": 3e-2, "p_tuning": 3e-3,
}  # fmt: skip
STEPS, BATCH, ROWS, PROMPTS = 100, 16, 1200, 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=list(RATES))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--method", help="one method, in this process")
    options = parser.parse_args()
    if options.method:
        print(json.dumps(one_method(options.base, options.method, options.steps)))
        return
    if options.replay:
        print(json.dumps(replay(options.base, options.seeds, options.steps)))
        return
    metrics = {}
    for method in options.methods:
        command = [sys.executable, __file__, "--base", str(options.base), "--method", method]
        command += ["--steps", str(options.steps)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            print(f"{method}: {ran.stderr[-800:]}")
            continue
        metrics[method] = json.loads(ran.stdout.splitlines()[-1])
        print(method, metrics[method], flush=True)
    print(json.dumps(metrics))


def demonstrations(folder: Path, forms: tuple[str, ...] | None = None, seed: int = 0) -> Any:
    """Write demonstrations of the embedded world, of some forms, as a dataset."""
    from plumbline.data.records import write_dataset
    from plumbline.runs.artifacts import Artifact
    from plumbline.world.data import demonstrations as of_world

    class Folder(Artifact):
        @property
        def id(self) -> str:
            return self.path.name

    rows = [row for row in of_world(seed, 2 * ROWS) if forms is None or row["form"] in forms]
    rows = [row | {"origin": "world", "row": n} for n, row in enumerate(rows[:ROWS], 1)]
    held_out = len(rows) // 10
    write_dataset(
        folder, {"train": rows[held_out:], "test": rows[:held_out]}, kind="messages", title="D",
        description="",
    )  # fmt: skip
    return Folder(folder), Folder


def train(
    work: Path, base: Path, data: Any, method: str, steps: int, seed: int, **more: Any
) -> Any:
    """Train on demonstrations; return the folder, the metrics and the seconds."""
    from plumbline.lm.tuning import TuningConfig
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage
    from plumbline.training.config import TrainingConfig
    from sft.config import OtherTasksConfig, SFTConfig
    from sft.train import train_sft

    others = more.pop("others", None)
    config = SFTConfig(
        tuning=TuningConfig(method=method),
        training=TrainingConfig(
            learning_rate=RATES[method], max_steps=steps, batch_size=BATCH, checkpoint_every=1000
        ),
        other_tasks=OtherTasksConfig(**more),
    )
    stage = Stage(work, Reporter(quiet=True))
    started = time.monotonic()
    metrics = train_sft(
        stage, config=config, base=type(data)(base), demonstrations=data, seed=seed,
        **({"others": others} if others else {}),
    )  # fmt: skip
    return stage.folder, metrics, time.monotonic() - started


def one_method(base: Path, method: str, steps: int) -> dict[str, Any]:
    """Return the row of a method."""
    from plumbline.lm.generation import SamplingConfig
    from plumbline.lm.policy import Policy
    from plumbline.seeds import derive
    from plumbline.world.data import prompts
    from plumbline.world.gold import GoldUtility

    with tempfile.TemporaryDirectory() as folder:
        data, _ = demonstrations(Path(folder) / "data")
        trained, metrics, seconds = train(Path(folder) / "run", base, data, method, steps, 0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        policy = Policy.load(trained)
        questions = prompts(0, PROMPTS, "heldout")
        sampling = SamplingConfig(temperature=0.7)
        seeds = [derive(0, "benchmark", n) for n in range(len(questions))]
        generations = policy.sample(
            [policy.encode(prompt) for prompt in questions], seeds, sampling
        )
        answers = [policy.decode(generation.ids) for generation in generations]
        gold = GoldUtility(0).score(questions, answers)
    return {
        "trained": int(metrics["trainable_parameters"]),
        "share": metrics["trainable_parameters"] / metrics["parameters"],
        "peak_mib": round(peak),
        "seconds": round(seconds, 1),
        "held_out_loss": round(metrics["held_out_loss"], 4),
        "gold": round(sum(gold) / len(gold), 3),
    }


def replay(base: Path, seeds: int, steps: int) -> dict[str, Any]:
    """Return held-out losses of an old and a new task, with and without replay, by seed.

    Old: questions about products and sums. New: orders over several turns.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        old, _ = demonstrations(work / "old", ("single_turn", "chain_of_thought"))
        new, _ = demonstrations(work / "new", ("multi_turn",))
        start, metrics, _ = train(work / "start", base, old, "full", 2 * steps, 0)
        before = metrics["held_out_loss"]
        for seed in range(seeds):
            row = {"seed": seed, "old_before": before}
            for name, share in (("without", 1e-9), ("with", 0.3)):  # no row in so many is 0
                _, after, _ = train(
                    work / f"{seed}-{name}", start, new, "full", steps, seed,
                    others={"old": old}, share=share,
                )  # fmt: skip
                row |= {
                    f"old_{name}_replay": after["held_out_loss/old"],
                    f"new_{name}_replay": after["held_out_loss"],
                }
            rows.append({key: round(value, 4) for key, value in row.items()})
            print(rows[-1], flush=True)
    return {"replay": rows}


if __name__ == "__main__":
    main()
