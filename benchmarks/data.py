"""Building a large dataset with planted copies: time, memory, and which copies are found.

    python benchmarks/data.py --rows 10000 100000 1000000

Rows are of random words (Zipf), 20 to 70 of them. 10 % of them are exact copies of an earlier
one but for case, 5 % an earlier one with two of its words replaced. The build does what
`plumbline data build` does, with these steps: unicode, roles, length, exact_duplicates and
near_duplicates. Memory is what the process and its workers hold of their own, sampled.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

# Beside this file lie ones with the names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

VOCABULARY = 50_000
STEPS = ("unicode", "roles", "length", "exact_duplicates", "near_duplicates")


def write_rows(path: Path, count: int) -> list[str]:
    """Write rows; return of each whether it is new, an exact or a near copy."""
    generator = random.Random(0)
    words = [f"{'bcdfghjklmnpqrstvwz'[n % 19]}{'aeiou'[n % 5]}{n:x}" for n in range(VOCABULARY)]
    words = [word.translate(str.maketrans("0123456789", "ghijklmnop")) for word in words]
    weights = [1 / (rank + 10) for rank in range(VOCABULARY)]
    cumulated, total = [], 0.0
    for weight in weights:
        total += weight
        cumulated.append(total)
    kinds: list[str] = []
    earlier: list[list[str]] = []
    with path.open("w") as stream:
        for _ in range(count):
            draw = generator.random()
            if draw < 0.10 and earlier:
                text, kind = list(generator.choice(earlier)), "exact"
                text[0] = text[0].upper()
            elif draw < 0.15 and earlier:
                text, kind = list(generator.choice(earlier)), "near"
                for place in generator.sample(range(len(text)), 2):
                    text[place] = generator.choice(words)
            else:
                text = generator.choices(words, cum_weights=cumulated, k=generator.randint(20, 70))
                kind = "new"
                if len(earlier) < 200_000:
                    earlier.append(text)
            kinds.append(kind)
            row = {"prompt": " ".join(text[:10]), "completion": " ".join(text[10:])}
            stream.write(json.dumps(row) + "\n")
    return kinds


class Memory(threading.Thread):
    """The largest memory that this process and its workers held of their own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest, self._done = 0, threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.5):
            here = psutil.Process()
            held = 0
            for process in [here, *here.children(recursive=True)]:
                try:
                    held += process.memory_full_info().uss
                except psutil.Error:
                    continue
            self.largest = max(self.largest, held)

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self.largest


def build(folder: str, workers: int, answer: object) -> None:
    """Build in a process of its own, as a stage does; send time and memory."""
    from plumbline.data.sources import source_at
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage
    from sft.build import build_dataset
    from sft.build.config import BuildConfig
    from sft.sources import FileDemonstrations

    config = BuildConfig(
        name="benchmark", sources=[{"path": "rows.jsonl"}], steps=STEPS, workers=workers
    )
    before = psutil.Process().memory_full_info().uss
    memory, started = Memory(), time.perf_counter()
    memory.start()
    metrics = build_dataset(
        Stage(Path(folder) / "stage", Reporter(quiet=True)),
        config=config.cleaning(),
        sources=[FileDemonstrations(source_at(Path(folder) / "rows.jsonl"))],
        data_seed=0,
    )
    seconds = time.perf_counter() - started
    answer.send((seconds, memory.stop() - before, dict(metrics)))  # type: ignore[attr-defined]


def measure(count: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = write_rows(folder / "rows.jsonl", count)
        ours, child_end = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=build, args=(name, workers, child_end)
        )
        process.start()
        child_end.close()  # so that the end of the process ends the waiting
        seconds, memory, metrics = ours.recv()
        process.join()
        left_out: Counter[str] = Counter()
        with (folder / "stage/out/dropped.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                left_out[kinds[json.loads(line)["row"] - 1]] += 1
        size = (folder / "rows.jsonl").stat().st_size
    planted = Counter(kinds)
    print(
        f"| {count:,} | {size / 2**20:,.0f} | {seconds:,.1f} | {memory / 2**20:,.0f} | "
        f"{left_out['exact'] / max(1, planted['exact']):.2%} | "
        f"{left_out['near'] / max(1, planted['near']):.2%} | {left_out['new']} | "
        f"{metrics['train_rows'] + metrics['test_rows']:,.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print("| rows | MiB | seconds | MiB of memory | exact found | near found | false | kept |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for count in arguments.rows:
        measure(count, arguments.workers)


if __name__ == "__main__":
    main()
