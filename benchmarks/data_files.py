"""What a build makes of real files: rows read, kept, and left out by reason, as a table.

    python benchmarks/data_files.py FOLDER

Every file below the folder is read as it is, with the settings of `plumbline data build` by default
and near duplicates besides. Files that hold no demonstrations are read as `plumbline data check`
does.
The table of docs/data.md is made by this.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

# Beside this file lie ones with the names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

import numpy as np

from plumbline.commands.data_check import READERS
from plumbline.data.reader import DataFormatConfig
from plumbline.data.sources import source_at
from plumbline.dropped import Dropped
from sft.build.config import STANDARD_STEPS
from sft.build.ledger import Ledger
from sft.build.passes import labels_of, run_passes
from sft.cleaning.steps import read_step
from sft.sources import FileDemonstrations

#: What files are read for, by a part of their path; others hold demonstrations.
USES = {
    "dpo_": ("preferences",), "hh-rlhf": ("preferences",), "pandalm/testset": ("pairs",),
    "mtbench/question": ("prompts",), "oasst": ("demonstrations", "preferences"),
}  # fmt: skip
#: Files without dialogues.
NO_ROWS = (".txt", ".md", ".docx", ".pdf")
NOT_TEXT = (".jpg", ".png")


def as_demonstrations(path: Path) -> tuple[int, int, Counter[str], Counter[str]]:
    steps = (*STANDARD_STEPS, read_step("near_duplicates", 5))
    source, dropped = FileDemonstrations(source_at(path)), Dropped()
    ledger = Ledger(dropped, labels_of(steps))
    with tempfile.TemporaryDirectory() as folder:
        passed = run_passes(
            [source], steps, folder=Path(folder), ledger=ledger, share=0.05, data_seed=0
        )
        kept = int(np.count_nonzero(passed.alive))
    changed = Counter(ledger.by_source({})[0]["changed"])
    return source.rows_read, kept, Counter(dropped.reasons()), changed


def by_check(path: Path, use: str) -> tuple[int, int, Counter[str], Counter[str]]:
    """Read a file as `plumbline data check FILE --as USE` does."""
    read = READERS[use](source_at(path), DataFormatConfig())
    return read.report.rows, read.kept, Counter(read.report.dropped.reasons()), Counter()


def main() -> None:
    root = Path(sys.argv[1])
    print("| file | read as | rows | kept | left out | changed |\n|---|---|---|---|---|---|")
    for path in sorted(file for file in root.rglob("*") if file.is_file()):
        name = str(path.relative_to(root))
        if path.suffix in NOT_TEXT or path.name == "README.md":
            continue
        if path.suffix in NO_ROWS:
            print(
                f"| `{name}` | a text without dialogues | – | – | refused: no table of rows | – |"
            )
            continue
        uses = next((uses for mark, uses in USES.items() if mark in name), ("demonstrations",))
        for use in uses:
            read = as_demonstrations if use == "demonstrations" else partial(by_check, use=use)
            rows, kept, reasons, changed = read(path)
            out = "; ".join(f"{n:,}: {brief(reason)}" for reason, n in reasons.most_common(3))
            if len(reasons) > 3:
                out += f"; {sum(n for _, n in reasons.most_common()[3:]):,}: other reasons"
            changes = "; ".join(f"{n:,}: {change}" for change, n in changed.most_common())
            print(f"| `{name}` | {use} | {rows:,} | {kept:,} | {out or '–'} | {changes or '–'} |")


def brief(reason: str) -> str:
    """Return a reason without the columns that it lists."""
    return reason.partition(" (its columns")[0]


if __name__ == "__main__":
    main()
