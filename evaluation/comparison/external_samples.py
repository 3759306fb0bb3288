"""Files of samples of any tool as training runs that enter a comparison on equal terms.

A file is of any kind that `plumbline.data.files` reads, and its rows of one of the formats of
`sample_formats`. The core's reader reads the rows; `sample_records` checks what each value means.
Scores that are missing are computed by the comparison's own scorers.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evaluation.comparison.sample_formats import (
    SAMPLE_FORMATS,
    Conversion,
    SampleFormat,
    format_of,
)
from evaluation.comparison.sample_records import (
    NEEDED,
    Sample,
    folded,
    from_cells,
    lacks,
    record_of,
    sample_of,
    without_nan,
)
from evaluation.comparison.training_runs import (
    COSTS,
    CheckpointEval,
    TrainingRun,
    prompts_digest,
)
from plumbline.data.files import kind_of_file, read_rows
from plumbline.data.raw_rows import RawRow
from plumbline.data.reader import ExampleReader, ReadReport
from plumbline.data.uses import USES
from plumbline.errors import DataError
from plumbline.hooks import Scorer

_SHOWN = 5
_TEXT_TABLES = ("csv", "tsv")


@dataclass
class SamplesFile:
    """The samples of a file, and what is worth saying about it."""

    path: Path
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def training_runs(self, scorers: Sequence[Scorer] = ()) -> list[TrainingRun]:
        """Return one training run per model and seed; ``scorers`` add the scores that are missing.

        Raises `DataError` where costs of one checkpoint differ.
        """
        by_run: dict[tuple[str, str], list[Sample]] = defaultdict(list)
        for sample in self.samples:
            by_run[sample.model, sample.seed].append(sample)
        return [scored(_training_run(self.path, samples), scorers) for samples in by_run.values()]


def read_samples_file(path: Path, conversion: Conversion | None = None) -> SamplesFile:
    """Read a file of samples.

    Raises `DataError` that lists what is wrong, with row numbers; a file is taken whole or not.
    """
    conversion = conversion or Conversion(path)
    samples, report = samples_in(path, conversion)
    if len(report.dropped):
        raise DataError(_listed(report, path))
    if not samples:
        raise DataError(
            f"{path} has no samples: no row of it has {', '.join(NEEDED[:-1])} and {NEEDED[-1]}."
        )
    return SamplesFile(path, samples, [*conversion.notes, *_notes(report)])


def samples_in(path: Path, conversion: Conversion | None = None) -> tuple[list[Sample], ReadReport]:
    """Read the samples in a file, and what is wrong with the other rows."""
    rows = _ConvertedRows(path, conversion or Conversion(path))
    reader = ExampleReader(rows, USES["samples"])
    samples: list[Sample] = []
    first: dict[tuple[str, str, int, str], tuple[str, Sample]] = {}
    costs: dict[tuple[str, str, int], tuple[str, object]] = {}
    for entry in reader:
        try:
            sample = sample_of(entry)
            key = (*sample.policy, str(sample.row["prompt_id"]))
            known = first.get(key)
            if known is not None and rows.merges and _are_same(known[1], sample):
                known[1].scores.update(sample.scores)
                continue
            name = f"model {sample.model!r}, seed {sample.seed!r}, checkpoint {sample.checkpoint}"
            if known is not None:
                raise ValueError(
                    f"is a response of {name} to the prompt of {known[0]} again. Give each "
                    "response of a model to a prompt a seed or a checkpoint of its own"
                )
            place, others = costs.setdefault(sample.policy, (entry.place, sample.costs))
            if sample.costs != others:
                raise ValueError(
                    f"has other costs of {name} than {place}. Costs are the totals up to a "
                    "checkpoint, the same in all its rows"
                )
        except (ValueError, RecursionError) as problem:
            reader.leave_out(entry, str(problem))
            continue
        first[key] = (entry.place, sample)
        samples.append(sample)
    return samples, reader.report


@dataclass
class _ConvertedRows:
    """The rows of a file with the keys of `sample_records`."""

    path: Path
    conversion: Conversion
    merges: bool = False

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def place(self) -> str:
        return str(self.path)

    def rows(self) -> Iterator[RawRow]:
        kind = kind_of_file(self.path).name if self.path.is_file() else ""
        form: SampleFormat | None = None
        for row in read_rows(self.path):
            if row.record is None:
                yield row
                continue
            record = row.record
            if kind in _TEXT_TABLES:
                record = from_cells(record)
            elif kind != "json":
                record = without_nan(record)
            form = form or format_of(record) or SAMPLE_FORMATS["plumbline"]
            self.merges = form.merges
            try:
                for read in form.read(record, self.conversion):
                    if problem := lacks(read):
                        raise ValueError(problem)
                    yield row._replace(record=folded(read))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                message = str(error) if isinstance(error, ValueError) else f"{error!r}"
                problem = (
                    message
                    if form.name == "plumbline"
                    else f"is not a row of {form.name}: {message}"
                )
                yield row._replace(record=None, problem=problem, text=str(record)[:200])


def _are_same(first: Sample, second: Sample) -> bool:
    return bool(first.row["response"] == second.row["response"])


def write_samples_file(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples as JSON lines with the keys of `sample_records`; return how many.

    Raises `DataError` where two of them are of one policy and prompt.
    """
    seen: set[tuple[str, str, int, str]] = set()
    lines = []
    for sample in samples:
        key = (*sample.policy, str(sample.row["prompt_id"]))
        if key in seen:
            raise DataError(
                f"Model {sample.model!r} responds to one prompt in two of the files: "
                f"{sample.row['prompt'][-1]['content'][:80]!r}. Convert the files one by one."
            )
        seen.add(key)
        lines.append(json.dumps(record_of(sample), ensure_ascii=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


def scored(run: TrainingRun, scorers: Sequence[Scorer]) -> TrainingRun:
    """Score the responses that lack a score, with the comparison's own scorers."""
    names = dict.fromkeys([*run.scorers, *(scorer.name for scorer in scorers)])
    for checkpoint in run.checkpoints:
        rows = list(checkpoint.rows)
        for scorer in scorers:
            unscored = [row for row in rows if row.get(scorer.name) is None]
            if not unscored:
                continue
            scores = scorer.score(
                [row["prompt"] for row in unscored], [row["response"] for row in unscored]
            )
            for row, score in zip(unscored, scores, strict=True):
                row[scorer.name] = score
    return replace(run, scorers=list(names))


def _notes(report: ReadReport) -> list[str]:
    notes = []
    if report.columns_unused:
        names = ", ".join(f"{name} ({count} rows)" for name, count in report.columns_unused.items())
        notes.append(
            f"{report.origin}: these columns are not used: {names}. A score belongs under 'score', "
            "or under 'scores' by its name."
        )
    if report.repaired:
        notes.append(
            f"{report.origin}: half characters were replaced by U+FFFD in {report.repaired} rows."
        )
    return notes


def _training_run(path: Path, samples: Sequence[Sample]) -> TrainingRun:
    by_step: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_step[sample.checkpoint].append(sample)
    checkpoints = [
        CheckpointEval(
            step,
            [sample.row | sample.scores for sample in some],
            {name: some[0].costs.get(name) for name in COSTS},
        )
        for step, some in sorted(by_step.items())
    ]
    terms = {"prompts": prompts_digest(checkpoints[-1].rows)}
    tokenizers = sorted({sample.tokenizer for sample in samples if sample.tokenizer})
    if tokenizers:
        terms["tokenizer"] = ", ".join(tokenizers)
    scores = dict.fromkeys(name for sample in samples for name in sample.scores)
    # A name with a dot is a part of the score that is named before the dot.
    scorers = [name for name in scores if name.partition(".")[0] not in scores or "." not in name]
    return TrainingRun(
        samples[0].model, samples[0].seed, checkpoints, str(path), terms=terms, scorers=scorers
    )


def _listed(report: ReadReport, path: Path) -> str:
    """Return the first problems of a file, one on each line, and what to do."""
    problems = list(report.dropped.entries())
    shown = [
        f"{path}, {report.unit} {problem['row']}: {str(problem['reason']).rstrip('.')}."
        for problem in problems[:_SHOWN]
    ]
    if len(problems) > _SHOWN:
        shown.append(f"And {len(problems) - _SHOWN} more.")
    return (
        "\n".join(shown) + f"\nNothing of {path} was taken. Fix these rows; docs/comparison.md "
        "lists what a row may have."
    )
