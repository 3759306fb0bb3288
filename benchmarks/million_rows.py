"""How much memory and time do many rows take on their way to a trainer's loader?

    python benchmarks/million_rows.py                          # 10,000, then 30,000 of each kind
    python benchmarks/million_rows.py --rows 1000000           # how long: docs/scale.md
    python benchmarks/million_rows.py --kinds demonstrations --folder /data/scratch

Each kind and number of rows is a process of its own. Pairs have random texts (a prompt of 60 words,
responses of 40), and so have demonstrations (two questions of 30 words, two answers of 40). The
process reads the dataset as a training does, makes token ids, and goes through the trainer's loader
once in a random order, in batches of 16 with the trainer's collator. For each step: seconds, rows
per second, and per second of processor time, which other programs do not take; the largest resident
memory so far with the interpreter and the libraries (pages of mapped files count, which the system
takes back when it needs them), and what the process holds of its own at the end, less that before.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

T = TypeVar("T")
Measurements = dict[str, dict[str, float]]
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 30_000])
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--folder", help="where datasets and rows lie for the time being")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        kind, count = options.alone
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(json.dumps(KINDS[kind](Path(folder), int(count))))
        return
    result: dict[str, dict[str, Measurements]] = {}
    for kind in options.kinds:
        for count in options.rows:
            command = [sys.executable, __file__, "--alone", kind, str(count)]
            command += ["--folder", options.folder] if options.folder else []
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            result.setdefault(kind, {})[str(count)] = json.loads(done.stdout.splitlines()[-1])
            print(kind, count, json.dumps(result[kind][str(count)]), flush=True)
    print(json.dumps(result))


class Steps:
    """Measurements of steps on so many rows."""

    def __init__(self, count: int) -> None:
        self.measured: Measurements = {}
        self._count, self._before = count, _memory("RssAnon")

    def do(self, name: str, work: Callable[[], T]) -> T:
        """Do a step; note its time and memory."""
        started, started_core = time.monotonic(), time.process_time()
        result = work()
        seconds, core = time.monotonic() - started, time.process_time() - started_core
        self.measured[name] = {
            "seconds": round(seconds, 2),
            "rows_per_second": round(self._count / seconds),
            "rows_per_core_second": round(self._count / core),
            "peak_gib": round(_memory("VmHWM") / 2**30, 3),
            "own_gib": round((_memory("RssAnon") - self._before) / 2**30, 3),
        }
        return result


def measure_pairs(folder: Path, count: int) -> Measurements:
    """Measure preference pairs on their way to DPO."""
    from plumbline.data.records import iterate_dataset
    from plumbline.dropped import DroppedFile
    from plumbline.training.pairs import encode_pairs
    from preference.batches import collate_pairs, pair_examples
    from preference.config import DPOConfig

    tokenizer, limit = _tokenizer()
    write(folder, _pairs(count))
    steps = Steps(count)
    rows = iterate_dataset(folder, "train")
    dropped = DroppedFile(folder)
    pairs = steps.do(
        "tokenize", lambda: encode_pairs(rows, tokenizer, limit, dropped, folder / "rows")
    )
    examples = pair_examples(pairs, DPOConfig(), "random")
    steps.do("load", lambda: _load(examples, collate_pairs))
    return steps.measured | {"disk": _disk(folder / "rows")}


def measure_demonstrations(folder: Path, count: int) -> Measurements:
    """Measure demonstrations on their way to supervised fine-tuning."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from plumbline.data.records import iterate_dataset
    from plumbline.dropped import DroppedFile
    from sft.answer_batches import WithWrongAnswers
    from sft.tokenized import tokenize
    from sft.trainer import WithColumns

    tokenizer, limit = _tokenizer()
    write(folder, _demonstrations(count))
    steps = Steps(count)
    rows = iterate_dataset(folder, "train")
    dropped, file = DroppedFile(folder), folder / "rows" / "new-train.arrow"
    data = steps.do("tokenize", lambda: tokenize(rows, tokenizer, limit, dropped, file))
    plain = DataCollatorForLanguageModeling(pad_token_id=int(tokenizer.pad_token_id))
    steps.do("load", lambda: _load(data, WithColumns(WithWrongAnswers(plain))))
    return steps.measured | {"disk": _disk(folder / "rows")}


KINDS: Mapping[str, Callable[[Path, int], Measurements]] = {
    "pairs": measure_pairs,
    "demonstrations": measure_demonstrations,
}


def _load(examples: Any, collate: Callable[[Any], Any]) -> int:
    """Go through all batches in a random order; return how many there were."""
    import torch
    from torch.utils.data import DataLoader

    generator = torch.Generator().manual_seed(0)
    loader: Any = DataLoader(
        examples, batch_size=BATCH, shuffle=True, generator=generator, collate_fn=collate
    )
    return sum(1 for _ in loader)


def _tokenizer() -> tuple[Any, Any]:
    """Return a tokenizer of whole words with a template, and a limit that all rows keep."""
    from benchmarks.ppo_workers import _tokenizer as words
    from plumbline.lm.chat import DEFAULT_TEMPLATE
    from plumbline.lm.context import LengthLimit

    tokenizer: Any = words()
    tokenizer.chat_template = DEFAULT_TEMPLATE
    return tokenizer, LengthLimit(512, "is longer than max_length")


def _memory(name: str) -> int:
    from benchmarks.memory_plan import memory

    return memory(name)


def _disk(folder: Path) -> dict[str, float]:
    """Return how much token ids take on the disk."""
    return {"gib": round(sum(file.stat().st_size for file in folder.iterdir()) / 2**30, 3)}


def _texts() -> Callable[[int], str]:
    """Return what returns so many random words."""
    from benchmarks.ppo_workers import VOCABULARY

    draw, words = random.Random(0), [f"w{number}" for number in range(2, VOCABULARY)]
    return lambda count: " ".join(draw.choices(words, k=count))


def _pairs(count: int) -> Iterator[dict[str, Any]]:
    text = _texts()
    for number in range(count):
        yield {
            "pair_id": str(number),
            "prompt": [{"role": "user", "content": text(60)}],
            "chosen": [{"role": "assistant", "content": text(40)}],
            "rejected": [{"role": "assistant", "content": text(40)}],
        }


def _demonstrations(count: int) -> Iterator[dict[str, Any]]:
    text = _texts()
    for number in range(count):
        turns = [("user", 30), ("assistant", 40)] * 2
        yield {
            "messages": [{"role": role, "content": text(words)} for role, words in turns],
            "origin": "random",
            "row": number + 1,
        }


def write(folder: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as the training split of a dataset, in parts, so that it needs no memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from plumbline.training.row_file import in_parts

    writer = None
    for part in in_parts(rows):
        table = pa.Table.from_pylist(part)
        writer = writer or pq.ParquetWriter(folder / "train.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


if __name__ == "__main__":
    main()
