"""Samples of anyone's tool, as JSON lines, entering a comparison on equal terms.

One answer a line: ``prompt`` (text or messages), ``response`` (text or messages), ``model`` (the
method's name); and where they are known ``seed``, ``checkpoint``, ``logprob`` and
``reference_logprob`` (of the whole response, nats), ``tokens``, ``finished``, ``subset``,
``tokenizer`` (its name), ``scores`` (name to number) and ``costs`` (``responses``, ``tokens``,
``steps``, ``seconds`` by then). Scores that are missing are computed by the comparison's own
scorers.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation.comparison.training_runs import (
    COSTS,
    CheckpointEval,
    TrainingRun,
    numeric_columns,
    prompts_digest,
)
from evaluation.words import words_of
from plumbline.data.records import Conversation, Row, prompt_id, user
from plumbline.errors import DataError
from plumbline.hooks import Scorer

_NUMBERS = ("logprob", "reference_logprob", "tokens")
#: Columns of an answer that are no scores.
_OTHERS = ("tokens", "words", *_NUMBERS)
_SHOWN = 5


def read_samples_file(path: Path, scorers: Sequence[Scorer] = ()) -> list[TrainingRun]:
    """Read a file of samples; one `Trained` a model and seed.

    Raises `DataError` that lists what is wrong, with line numbers; a file is taken whole or not.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path} (looked for from {Path.cwd()}).")
    problems: list[str] = []
    responses: dict[tuple[str, str], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    costs: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    tokenizers: dict[tuple[str, str], set[str]] = defaultdict(set)
    first_lines: dict[tuple[str, str, int, str], int] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row, key, checkpoint, record = _row(line)
            except ValueError as error:
                problems.append(f"{path}, line {number}: {error}")
                continue
            key_of_response = (*key, checkpoint, row["prompt_id"])
            if key_of_response in first_lines:
                problems.append(
                    f"{path}, line {number}: model {key[0]!r}, seed {key[1]!r}, checkpoint "
                    f"{checkpoint} responds to this prompt in line {first_lines[key_of_response]} "
                    "already"
                )
                continue
            first_lines[key_of_response] = number
            responses[key][checkpoint].append(row)
            if record.get("costs"):
                costs[(*key, checkpoint)] = record["costs"]
            if record.get("tokenizer"):
                tokenizers[key].add(str(record["tokenizer"]))
    _refuse(problems, path)
    if not responses:
        raise DataError(f"{path} has no samples: no line in it has a prompt and a response.")
    runs = [
        _training_run(path, key, checkpoints, costs, sorted(tokenizers[key]))
        for key, checkpoints in responses.items()
    ]
    return [scored(run, scorers) for run in runs]


def scored(run: TrainingRun, scorers: Sequence[Scorer]) -> TrainingRun:
    """Score answers that lack a score, with the comparison's own scorers."""
    names = dict.fromkeys([*run.scorers, *(scorer.name for scorer in scorers)])
    for checkpoint in run.checkpoints:
        rows = list(checkpoint.rows)
        for scorer in scorers:
            unscored = [row for row in rows if row.get(scorer.name) is None]
            if not unscored:
                continue
            found = scorer.score([r["prompt"] for r in unscored], [r["response"] for r in unscored])
            for row, score in zip(unscored, found, strict=True):
                row[scorer.name] = score
    return replace(run, scorers=list(names))


def _row(line: str) -> tuple[Row, tuple[str, str], int, Mapping[str, Any]]:
    """Return one line as a judged answer, its model and seed, its checkpoint and what it gave."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg})") from None
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    for name in ("prompt", "response", "model"):
        if record.get(name) in (None, "", []) and not (name == "response" and name in record):
            raise ValueError(f"it has no {name!r}; it has {', '.join(map(repr, record))}")
    prompt = _messages(record["prompt"])
    response = _text(record["response"])
    row: Row = {
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "response": response,
        "tokens": None,
        "words": len(words_of(response)),
        "finished": bool(record.get("finished", True)),
    }
    for name in _NUMBERS:
        row[name] = _number(record, name)
    if record.get("subset") is not None:
        row["subset"] = str(record["subset"])
    scores = record.get("scores") or {}
    if not isinstance(scores, dict):
        raise ValueError("'scores' must be an object of names and numbers")
    for name in scores:
        row[name] = _number(scores, name)
    if not isinstance(record.get("costs") or {}, dict):
        raise ValueError("'costs' must be an object of names and numbers")
    checkpoint = record.get("checkpoint", 0)
    if isinstance(checkpoint, str) and checkpoint.isdigit():
        checkpoint = int(checkpoint)
    if not isinstance(checkpoint, int) or isinstance(checkpoint, bool):
        raise ValueError(f"'checkpoint' is {checkpoint!r}, not the number of a step")
    return row, (str(record["model"]), str(record.get("seed", 0))), checkpoint, record


def _messages(prompt: Any) -> Conversation:
    if isinstance(prompt, str):
        return [user(prompt)]
    if isinstance(prompt, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in prompt
    ):
        return [{"role": m["role"], "content": m["content"]} for m in prompt]
    raise ValueError("'prompt' is neither a text nor a list of messages with role and content")


def _text(response: Any) -> str:
    if isinstance(response, str):
        return response
    if isinstance(response, list) and response:
        last = _messages(response)[-1]
        return str(last["content"])
    raise ValueError("'response' is neither a text nor a list of messages")


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name!r} is {value!r}, not a finite number")
    return float(value)


def _training_run(
    path: Path,
    key: tuple[str, str],
    rows_by_step: Mapping[int, Sequence[Row]],
    costs: Mapping[tuple[str, str, int], Mapping[str, Any]],
    tokenizers: Sequence[str],
) -> TrainingRun:
    model, seed = key
    found = [
        CheckpointEval(
            checkpoint,
            rows,
            {name: costs.get((*key, checkpoint), {}).get(name) for name in COSTS},
        )
        for checkpoint, rows in sorted(rows_by_step.items())
    ]
    terms = {"prompts": prompts_digest(found[-1].rows)}
    if tokenizers:
        terms["tokenizer"] = ", ".join(tokenizers)
    scorers = [name for name in numeric_columns(found[-1].rows) if name not in _OTHERS]
    return TrainingRun(model, seed, found, str(path), terms=terms, scorers=scorers)


def _refuse(problems: Sequence[str], path: Path) -> None:
    if not problems:
        return
    shown = list(problems[:_SHOWN])
    if len(problems) > _SHOWN:
        shown.append(f"and {len(problems) - _SHOWN} more")
    raise DataError(
        "\n".join(shown) + f"\nNothing of {path} was taken. Every line needs prompt, response and "
        "model; docs/comparison.md lists what else may stand in it."
    )
