"""Human preferences from files and datasets in any known format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from plumbline.data.part_values import named, number_of
from plumbline.data.reader import ExampleReader, ReadReport, ReadRow
from plumbline.data.records import (
    Row,
    is_held_out,
    opening,
    problem_with_row,
    prompt_id,
    read_dataset,
    write_dataset,
)
from plumbline.data.sources import Source
from plumbline.data.uses import USES
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage
from preference.pairs_config import PreferenceFileConfig


@stage("preferences")
def import_preferences(
    stage: Stage,
    *,
    config: PreferenceFileConfig,
    file: Source | SourceFile,
    data_seed: int,
    held_out: Source | SourceFile | Artifact | None = None,
) -> Mapping[str, float | None]:
    """Make a preference dataset with splits ``train`` and ``test`` from a file.

    ``held_out`` is the split ``test``, where it is given, of a file or of another dataset; what
    shares a prompt with it is not trained on. Else a share of the prompts is held out.
    """
    rows, report = read_preferences(file, config)
    train: list[Row] = []
    test: list[Row] = []
    openings: set[str] = set()
    if isinstance(held_out, Artifact):
        test = read_dataset(held_out.path, "test")
    elif held_out is not None:
        test, other = read_preferences(held_out, config)
        report.dropped.rows.extend(other.dropped.rows)
    openings.update(prompt_id(opening(row["prompt"])) for row in test)
    for row in rows:
        # Dialogues that grow from each other share their opening, and are on one side.
        first = opening(row["prompt"])
        if held_out is None:
            out = is_held_out(first, config.held_out_share, data_seed)
            (test if out else train).append(row)
        elif prompt_id(first) in openings:
            report.dropped.add(row["origin"], row["row"], "has a held-out prompt", row["prompt"])
        else:
            train.append(row)
    if not train or not test:
        raise DataError(
            f"{report.origin} leaves {len(train)} pairs to train on and {len(test)} held out; both "
            "need some. Give more, raise held_out_share, or give held-out pairs of their own "
            f"(--eval-data). Left out: {report.dropped.reasons() or 'none'}."
        )
    for note in report.notes():
        stage.say_plainly(note)
    stage.report_dropped(report.dropped)
    description = f"Human preferences from {report.origin}, split by prompt."
    return write_dataset(
        stage.folder,
        {"train": train, "test": test},
        kind="preference",
        title="Preferences",
        description="\n\n".join([description, *report.notes()]),
        dropped=report.dropped,
    )


def read_preferences(
    file: Source | SourceFile | Path, config: PreferenceFileConfig | None = None
) -> tuple[list[Row], ReadReport]:
    """Read rows with ``prompt``, ``chosen``, ``rejected``; keep what is wrong with the others."""
    config = config or PreferenceFileConfig()
    reader = ExampleReader(file, USES["preferences"], config, max_rows=config.max_rows)
    rows: list[Row] = []
    seen: set[str] = set()
    missing = set(config.keep)
    for entry in reader:
        row = _row(entry)
        missing -= entry.record.keys()
        kept, problem = _kept(entry, config.keep)
        row |= kept
        problem = problem or _problem(row, config, seen)
        if problem is None:
            rows.append(row | {"origin": reader.report.origin, "row": entry.number})
        else:
            reader.leave_out(entry, problem)
    if missing and reader.report.rows:
        raise DataError(
            f"{reader.report.origin} has no column {', '.join(map(repr, sorted(missing)))}, which "
            "preferences.keep names."
        )
    for name in config.keep:
        del reader.report.columns_unused[name]
    return rows, reader.report


def _row(entry: ReadRow) -> Row:
    example = entry.example
    nth = f"-{entry.nth}" if entry.nth else ""
    row: Row = {
        "pair_id": f"{prompt_id(example.prompt)}-{entry.number}{nth}",
        "prompt": example.prompt,
        "chosen": example.chosen,
        "rejected": example.rejected,
    }
    return row | ({} if example.margin is None else {"margin": example.margin})


def _kept(entry: ReadRow, names: Sequence[str]) -> tuple[Row, str | None]:
    """Return the numbers of columns that are kept, or what is wrong with one."""
    kept: Row = {}
    for name in names:
        if name not in entry.record:
            return {}, f"has no column {name!r}, which preferences.keep names"
        try:
            kept[name] = named(name, number_of, entry.record[name])
        except ValueError as problem:
            return {}, str(problem)
    return kept, None


def _problem(row: Row, config: PreferenceFileConfig, seen: set[str]) -> str | None:
    problem = problem_with_row(row, "preference")
    if problem is not None:
        return problem
    if row["prompt"][-1]["role"] != "user":
        return f"'prompt' ends with the {row['prompt'][-1]['role']}'s turn, not the user's"
    if row["chosen"] == row["rejected"]:
        return "chosen and rejected are the same"
    key = prompt_id([*row["prompt"], *row["chosen"], *row["rejected"]])
    if key in seen:
        return "repeats an earlier row"
    seen.add(key)
    texts = [sum(len(m["content"]) for m in row[name]) for name in ("prompt", "chosen", "rejected")]
    if texts[0] + max(texts[1:]) > config.max_characters:
        return f"is longer than max_characters ({config.max_characters})"
    return None
