"""How fast do the stages that make datasets take many rows, and in how much memory?

    python benchmarks/dataset_builds.py                          # 10,000, 30,000 and 100,000 rows
    python benchmarks/dataset_builds.py --rows 1000000           # minutes, and some GiB of disk
    python benchmarks/dataset_builds.py --steps preferences refine --rows 10000

Each step and number of rows is a process of its own. Rows are random words out of 5,000: a prompt
of 60, two responses of 40 or one of 80. ``preferences`` and ``demonstrations`` import a file of
JSON lines with the stages and settings of the recipes; ``labels`` imports single responses, each
liked or not, and makes pairs of them; ``refine`` filters, balances and extends preferences.

For each: seconds, rows per second, processor seconds of the stage's process, its largest resident
memory less that of the interpreter and the libraries, what it and its workers hold of their own at
most (sampled), and MiB on disk: of the file, and of the artefact. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

MIB = 2**20
WORDS = [f"w{number}" for number in range(5000)]
Made = Mapping[str, float | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--steps", nargs="+", default=["preferences", "demonstrations"],
                        choices=list(STEPS))  # fmt: skip
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(*json.loads(options.alone))))
        return
    result: dict[str, dict[str, Any]] = {step: {} for step in options.steps}
    for step in options.steps:
        for count in options.rows:
            command = [sys.executable, __file__, "--alone", json.dumps([step, count])]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            result[step][str(count)] = json.loads(done.stdout.splitlines()[-1])
            print(step, count, json.dumps(result[step][str(count)]), flush=True)
    print(json.dumps(result))


def measure(step: str, count: int) -> dict[str, float]:
    """Return seconds, rows per second, memory and disk of a step."""
    from benchmarks.data import Memory
    from benchmarks.memory_plan import memory
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage

    with tempfile.TemporaryDirectory() as scratch:
        stage = Stage(Path(scratch) / "stage", Reporter(quiet=True))
        work, size = STEPS[step](Path(scratch), count, stage)
        before, own = memory("VmRSS"), psutil.Process().memory_full_info().uss
        held = Memory()
        held.start()
        started, processor = time.monotonic(), time.process_time()
        work()
        seconds, processor = time.monotonic() - started, time.process_time() - processor
        together = held.stop()
        return {
            "seconds": round(seconds, 2),
            "rows_per_second": round(count / seconds),
            "processor_seconds": round(processor, 2),
            "peak_mib": round((memory("VmHWM") - before) / MIB),
            "with_workers_mib": round(max(0, together - own) / MIB),
            "file_mib": round(size / MIB),
            "artifact_mib": round(_size(stage.folder) / MIB),
        }


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# --- The steps: each prepares its input, and returns the work with the size of the input. --------

Step = Callable[[Path, int, Any], tuple[Callable[[], Made], int]]


def preferences(folder: Path, count: int, stage: Any) -> tuple[Callable[[], Made], int]:
    """Import a file of preference pairs."""
    import datasets  # noqa: F401 - imported before memory is measured

    from plumbline.data.sources import source_at
    from preference.pairs_config import PreferenceFileConfig
    from preference.sources import import_preferences

    file = _write(folder, (_pair(draw) for draw in _draws(count)))
    config = PreferenceFileConfig()
    return (
        lambda: import_preferences(stage, config=config, file=source_at(file), data_seed=0)
    ), file.stat().st_size


def demonstrations(folder: Path, count: int, stage: Any) -> tuple[Callable[[], Made], int]:
    """Build demonstrations of a file."""
    import datasets  # noqa: F401

    from plumbline.data.sources import source_at
    from sft.build import build_demonstrations
    from sft.config import DemonstrationsConfig
    from sft.sources import from_file

    rows = (
        {"messages": [_message("user", draw, 60), _message("assistant", draw, 80)]}
        for draw in _draws(count)
    )
    file = _write(folder, rows)
    config = DemonstrationsConfig()
    source = from_file(source_at(file), config)
    return (
        lambda: build_demonstrations(stage, config=config, source=source, data_seed=0)
    ), file.stat().st_size


def labels(folder: Path, count: int, stage: Any) -> tuple[Callable[[], Made], int]:
    """Import labelled responses, two to each prompt, and make pairs of them."""
    import datasets  # noqa: F401

    from plumbline.data.sources import source_at
    from preference.label_sources import import_labels, pair_labels
    from preference.pairs_config import LabelFileConfig

    def rows() -> Iterator[dict[str, Any]]:
        prompt = ""
        for number, draw in enumerate(_draws(count)):
            prompt = prompt if number % 2 else _text(draw, 60)
            yield {"prompt": prompt, "completion": _text(draw, 40), "label": number % 2 == 0}

    file = _write(folder, rows())

    def work() -> Made:
        imported = stage.part("labels")
        import_labels(imported, config=LabelFileConfig(), file=source_at(file), data_seed=0)
        pairs = stage.part("pairs")
        return pair_labels(pairs, labels=_artifact(imported), pairs_per_prompt=4, seed=0)

    return work, file.stat().st_size


def refine(folder: Path, count: int, stage: Any) -> tuple[Callable[[], Made], int]:
    """Filter, balance and extend preferences."""
    from plumbline.data.records import write_dataset
    from preference.pairs_config import RefineConfig
    from preference.refine import refine_preferences

    def rows() -> Iterator[dict[str, Any]]:
        for number, draw in enumerate(_draws(count)):
            sides = {
                "prompt": _message("user", draw, 60),
                "chosen": _message("assistant", draw, 40),
                "rejected": _message("assistant", draw, 40),
            }
            yield {"pair_id": str(number), **{name: [turn] for name, turn in sides.items()}}

    splits = {"train": rows(), "test": [next(rows())]}
    write_dataset(folder / "in", splits, kind="preference", title="Pairs", description="")
    config = RefineConfig(balance_length=True, negatives=0.1)
    stage.id, place = "pairs", _Artifact("pairs", folder / "in")
    return (
        lambda: refine_preferences(stage, config=config, preferences=place, seed=0)  # type: ignore[arg-type]
    ), _size(folder / "in")


STEPS: dict[str, Step] = {
    "preferences": preferences,
    "demonstrations": demonstrations,
    "labels": labels,
    "refine": refine,
}


class _Artifact:
    """What a stage reads of an artefact."""

    def __init__(self, id: str, path: Path) -> None:
        self.id, self.path = id, path


def _artifact(stage: Any) -> Any:
    return _Artifact(stage.id, stage.folder)


def _draws(count: int) -> Iterator[random.Random]:
    draw = random.Random(0)
    return (draw for _ in range(count))


def _pair(draw: random.Random) -> dict[str, str]:
    return {"prompt": _text(draw, 60), "chosen": _text(draw, 40), "rejected": _text(draw, 40)}


def _message(role: str, draw: random.Random, words: int) -> dict[str, str]:
    return {"role": role, "content": _text(draw, words)}


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))


def _write(folder: Path, rows: Iterator[dict[str, Any]]) -> Path:
    file = folder / "rows.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    return file


if __name__ == "__main__":
    main()
