"""How much memory and time do many preference pairs take on their way to a trainer's loader?

    python benchmarks/million_pairs.py                    # 10,000, then 30,000 pairs
    python benchmarks/million_pairs.py --pairs 1000000    # needs much memory, see docs/scale.md

Each number of pairs is a process of its own. It writes a preference dataset of random texts (a
prompt of 60 words, responses of 40), reads its split as a training does, makes token ids of both
responses, makes the examples of DPO, and goes through all of them in batches of 16 with the
trainer's collator. For each step: seconds, pairs per second, and the largest resident memory so far
less that of the interpreter and the libraries. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

T = TypeVar("T")
PROMPT, RESPONSE, BATCH = 60, 40, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pairs", type=int, nargs="*", default=[10_000, 30_000])
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(options.alone)))
        return
    result = {}
    for count in options.pairs:
        command = [sys.executable, __file__, "--alone", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        result[str(count)] = json.loads(done.stdout.splitlines()[-1])
        print(count, json.dumps(result[str(count)]), flush=True)
    print(json.dumps(result))


def measure(count: int) -> dict[str, dict[str, float]]:
    """Return seconds, pairs per second and GiB of each step."""
    from benchmarks.memory_plan import memory
    from benchmarks.ppo_workers import _tokenizer
    from plumbline.data.records import iterate_dataset
    from plumbline.dropped import Dropped
    from plumbline.lm.chat import DEFAULT_TEMPLATE
    from plumbline.lm.context import LengthLimit
    from plumbline.training.pairs import encode_pairs
    from preference.batches import collate_pairs, pair_examples
    from preference.config import DPOConfig

    tokenizer: Any = _tokenizer()
    tokenizer.chat_template = DEFAULT_TEMPLATE
    steps: dict[str, dict[str, float]] = {}
    before = memory("VmRSS")

    def step(name: str, work: Callable[[], T]) -> T:
        started = time.monotonic()
        result = work()
        seconds = time.monotonic() - started
        steps[name] = {
            "seconds": round(seconds, 2),
            "pairs_per_second": round(count / seconds),
            "peak_gib": round((memory("VmHWM") - before) / 2**30, 3),
        }
        return result

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder, count)
        before = memory("VmRSS")
        limit = LengthLimit(512, "is longer than max_length")
        rows = iterate_dataset(folder, "train")
        pairs = step("tokenize", lambda: encode_pairs(rows, tokenizer, limit, Dropped()))
    examples = step("examples", lambda: pair_examples(pairs, DPOConfig(), "random"))

    def load() -> int:
        tokens = 0
        for start in range(0, count, BATCH):
            tokens += collate_pairs(examples[start : start + BATCH])["pairs"].tokens_seen
        return tokens

    step("load", load)
    return steps


def write(folder: Path, count: int) -> None:
    """Write random pairs in parts, so that writing needs no memory of its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmarks.ppo_workers import VOCABULARY

    draw = random.Random(0)

    def text(words: int) -> str:
        return " ".join(f"w{draw.randrange(2, VOCABULARY)}" for _ in range(words))

    writer = None
    for start in range(0, count, 1000):
        rows = [
            {
                "pair_id": str(number),
                "prompt": [{"role": "user", "content": text(PROMPT)}],
                "chosen": [{"role": "assistant", "content": text(RESPONSE)}],
                "rejected": [{"role": "assistant", "content": text(RESPONSE)}],
            }
            for number in range(start, min(start + 1000, count))
        ]
        table = pa.Table.from_pylist(rows)
        writer = writer or pq.ParquetWriter(folder / "train.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


if __name__ == "__main__":
    main()
