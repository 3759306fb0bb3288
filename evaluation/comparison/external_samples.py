"""Samples of any tool, entering a comparison on equal terms.

One response per row, in a file of any kind that is read (docs/formats.md): ``prompt`` (text or
messages), ``response`` (text or messages), ``model`` (the method's name); and where they are known
``seed``, ``checkpoint``, ``logprob`` and ``reference_logprob`` (of the whole response, nats),
``tokens``, ``finished``, ``subset``, ``tokenizer`` (its name), ``scores`` (name to number) and
``costs`` (``responses``, ``tokens``, ``steps``, ``seconds`` by then). Scores that are missing are
computed by the comparison's own scorers.

Each value is checked for its meaning: a log-probability is at most 0, a cost at least 0. A file is
taken whole or not at all.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.comparison.training_runs import (
    COSTS,
    NO_SCORES,
    CheckpointEval,
    TrainingRun,
    numeric_columns,
    prompts_digest,
)
from evaluation.words import words_of
from plumbline.data.messages import is_missing, kind_of
from plumbline.data.reader import ExampleReader, ReadReport, ReadRow
from plumbline.data.records import Row, prompt_id
from plumbline.data.uses import USES
from plumbline.errors import DataError
from plumbline.hooks import Scorer

#: Columns of a response that are no scores.
_OTHERS = ("tokens", "words", "logprob", "reference_logprob")
_SCORE_NAME = re.compile(r"[\w][\w +:()-]{0,59}")
_ROUNDING = 1e-6
"""By so much a log-probability may be above 0."""
_STANDARD_ERRORS = 4
"""A mean KL this many standard errors below 0 does not arise by chance."""
_SHOWN = 5


class Sample(NamedTuple):
    """A response, and whose it is."""

    row: Row
    key: tuple[str, str]
    """Model and seed."""
    checkpoint: int
    costs: Mapping[str, float]
    tokenizer: str | None


def read_samples_file(path: Path, scorers: Sequence[Scorer] = ()) -> list[TrainingRun]:
    """Read a file of samples; one `TrainingRun` per model and seed.

    Raises `DataError` that lists what is wrong, with line numbers.
    """
    samples, report = samples_in(path)
    _refuse(report, path)
    if not samples:
        raise DataError(f"{path} has no samples: no row in it has a prompt and a response.")
    responses: dict[tuple[str, str], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    costs: dict[tuple[str, str, int], Mapping[str, float]] = {}
    tokenizers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for sample in samples:
        responses[sample.key][sample.checkpoint].append(sample.row)
        if sample.costs:
            costs[(*sample.key, sample.checkpoint)] = sample.costs
        if sample.tokenizer is not None:
            tokenizers[sample.key].add(sample.tokenizer)
    runs = [
        _training_run(path, key, checkpoints, costs, sorted(tokenizers[key]))
        for key, checkpoints in responses.items()
    ]
    return [scored(run, scorers) for run in runs]


def samples_in(path: Path) -> tuple[list[Sample], ReadReport]:
    """Read the samples in a file, and what is wrong with the other rows."""
    reader = ExampleReader(path, USES["samples"])
    samples: list[Sample] = []
    first_rows: dict[tuple[str, str, int, str], str] = {}
    for entry in reader:
        try:
            sample = _sample(entry)
        except ValueError as problem:
            reader.leave_out(entry, str(problem))
            continue
        place = (*sample.key, sample.checkpoint, sample.row["prompt_id"])
        if place in first_rows:
            reader.leave_out(
                entry,
                f"is a response of model {sample.key[0]!r}, seed {sample.key[1]!r}, checkpoint "
                f"{sample.checkpoint} to the prompt of {first_rows[place]} again",
            )
            continue
        first_rows[place] = entry.place
        samples.append(sample)
    return samples, reader.report


def scored(run: TrainingRun, scorers: Sequence[Scorer]) -> TrainingRun:
    """Score answers that lack a score, with the comparison's own scorers."""
    names = dict.fromkeys([*run.scorers, *(scorer.name for scorer in scorers)])
    for checkpoint in run.checkpoints:
        rows = list(checkpoint.rows)
        for scorer in scorers:
            unscored = [row for row in rows if row.get(scorer.name) is None]
            if not unscored:
                continue
            scores = scorer.score(
                [r["prompt"] for r in unscored], [r["response"] for r in unscored]
            )
            for row, score in zip(unscored, scores, strict=True):
                row[scorer.name] = score
    return replace(run, scorers=list(names))


def _sample(entry: ReadRow) -> Sample:
    """Return a row as a response whose values mean what they say."""
    record, example = entry.record, entry.example
    turns = example.response or []
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        last = turns[-1]["role"] if turns else "nobody"
        raise ValueError(
            f"has {len(turns)} messages as the response, the last by {last}; a response is one "
            "message of the assistant's"
        )
    text = turns[0]["content"]
    row: Row = {
        "prompt_id": prompt_id(example.prompt),
        "prompt": example.prompt,
        "response": text,
        "tokens": _number(record, "tokens", least=0),
        "words": len(words_of(text)),
        "finished": _is_finished(record),
        "logprob": _number(record, "logprob", most=_ROUNDING),
        "reference_logprob": _number(record, "reference_logprob", most=_ROUNDING),
    }
    if example.subset is not None:
        row["subset"] = example.subset
    scores = _object(record, "scores")
    for name in scores:
        if not _SCORE_NAME.fullmatch(name) or name in NO_SCORES:
            raise ValueError(
                f"has the score {name!r}: a name of a score has letters, digits, blanks and "
                f"_+:()- and is none of {', '.join(sorted(NO_SCORES))}"
            )
        row[name] = _number(scores, name)
    costs = _object(record, "costs")
    unknown = sorted(set(costs) - set(COSTS))
    if unknown:
        raise ValueError(f"has the cost {unknown[0]!r}, which is none of {', '.join(COSTS)}")
    numbers = {name: cost for name in costs if (cost := _number(costs, name, least=0)) is not None}
    tokenizer = record.get("tokenizer")
    key = (str(record[entry.columns["model"]]), str(record.get("seed", 0)))
    return Sample(
        row, key, _checkpoint(record), numbers, None if tokenizer is None else str(tokenizer)
    )


def _is_finished(record: Mapping[str, Any]) -> bool:
    finished = record.get("finished")
    if is_missing(finished):
        return True
    if not isinstance(finished, bool):
        raise ValueError(f"'finished' is {finished!r}, not true or false")
    return finished


def _checkpoint(record: Mapping[str, Any]) -> int:
    checkpoint = record.get("checkpoint", 0)
    if isinstance(checkpoint, str) and checkpoint.isdigit():
        return int(checkpoint)
    if not isinstance(checkpoint, int) or isinstance(checkpoint, bool) or checkpoint < 0:
        raise ValueError(f"'checkpoint' is {checkpoint!r}, not the number of a step")
    return checkpoint


def _object(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    if is_missing(value):
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name!r} is {kind_of(value)}, not an object of names and numbers")
    return value


def _number(
    record: Mapping[str, Any], name: str, least: float = -math.inf, most: float = math.inf
) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name!r} is {str(value)[:40]!r}, not a finite number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name!r} is {number}, not a finite number")
    if number < least:
        raise ValueError(f"{name!r} is {number:g}, which cannot be below {least:g}")
    if number > most:
        raise ValueError(f"{name!r} is {number:g}; the logarithm of a probability is at most 0")
    return number


def _training_run(
    path: Path,
    key: tuple[str, str],
    rows_by_step: Mapping[int, Sequence[Row]],
    costs: Mapping[tuple[str, str, int], Mapping[str, float]],
    tokenizers: Sequence[str],
) -> TrainingRun:
    model, seed = key
    checkpoints = [
        CheckpointEval(
            checkpoint,
            rows,
            {name: costs.get((*key, checkpoint), {}).get(name) for name in COSTS},
        )
        for checkpoint, rows in sorted(rows_by_step.items())
    ]
    final = checkpoints[-1]
    terms = {"prompts": prompts_digest(final.rows)}
    if tokenizers:
        terms["tokenizer"] = ", ".join(tokenizers)
    scorers = [name for name in numeric_columns(final.rows) if name not in _OTHERS]
    problems = [text for c in checkpoints if (text := _kl_problem(c)) is not None]
    return TrainingRun(
        model, seed, checkpoints, str(path), terms=terms, scorers=scorers, problems=problems
    )


def _kl_problem(checkpoint: CheckpointEval) -> str | None:
    """Say where a KL is so far below 0 that it cannot be one."""
    ratios = checkpoint.log_ratios
    if len(ratios) < 2:
        return None
    mean, error = statistics.fmean(ratios), statistics.stdev(ratios) / math.sqrt(len(ratios))
    if mean + _STANDARD_ERRORS * error >= -_ROUNDING:
        return None
    return (
        f"its KL to the reference at step {checkpoint.step} is {mean:.2f} nats per response, and a "
        "KL is never below 0: the log-probabilities are of other tokens, another temperature or "
        "another reference"
    )


def _refuse(report: ReadReport, path: Path) -> None:
    """Raise `DataError` with the first rows that are wrong."""
    rows = report.dropped.rows
    if not rows:
        return
    shown = [f"{path}, {report.unit} {row['row']}: {row['reason']}" for row in rows[:_SHOWN]]
    if len(rows) > _SHOWN:
        shown.append(f"and {len(rows) - _SHOWN} more")
    raise DataError(
        "\n".join(shown) + f"\nNothing of {path} was taken. Every row needs prompt, response and "
        "model; docs/comparison.md lists what else may stand in it."
    )
