"""One line of a file of samples: every value is checked for what it means, before it is compared.

Keys: ``prompt`` (text or messages), ``response`` (text or messages), ``model``; and where they are
known ``seed``, ``checkpoint``, ``score`` or ``scores`` (name to number), ``logprob`` and
``reference_logprob`` (of the whole response, nats), ``tokens``, ``finished``, ``subset``,
``tokenizer`` (its name), ``costs`` (``responses``, ``tokens``, ``steps``, ``seconds`` so far). In a
table without nested columns, ``scores.NAME`` and ``costs.NAME`` are columns of their own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.comparison.training_runs import COSTS, NO_SCORES
from evaluation.words import words_of
from plumbline.data.formats import FORMATS
from plumbline.data.messages import is_missing, kind_of, structure_from
from plumbline.data.reader import ReadRow
from plumbline.data.records import Row, prompt_id

NEEDED = ("prompt", "response", "model")
_RESPONSES = FORMATS["samples"].columns["response"]
#: Columns whose cells are texts, in a table of texts.
_TEXTS = frozenset(
    name for part in (*NEEDED, "subset") for name in FORMATS["samples"].columns[part]
) | {"tokenizer", "seed", "system"}
KEYS = (*NEEDED, "seed", "checkpoint", "score", "scores", "logprob", "reference_logprob", "tokens",
        "finished", "subset", "tokenizer", "costs")  # fmt: skip
#: Names that a score cannot have: columns of samples and metrics that the suite computes.
_TAKEN = NO_SCORES | {*KEYS, "kl", "kl_se", "messages", "method", "policy"}
_TAKEN_ENDINGS = ("_win_rate", "_win_rate_low", "_win_rate_high", "_se")
_LONGEST_NAME = 200
#: The square of a larger number, which statistics need, may be infinite.
_LARGEST = 1e100
#: A log-probability of 0 that was summed in another order may exceed 0 by this much, in nats.
_ROUNDING = 1e-4
#: What other tools call what we need, beside the names that are read.
_OTHER_NAMES = {
    "prompt": ("input", "query", "messages", "text"),
    "response": ("answer", "generation", "text", "prediction"),
    "model": ("model_id", "model_name", "system", "name"),
}


@dataclass(frozen=True)
class Sample:
    """One response of one policy."""

    row: Row
    model: str
    seed: str
    checkpoint: int
    scores: dict[str, float | None]
    costs: Mapping[str, float]
    tokenizer: str | None

    @property
    def policy(self) -> tuple[str, str, int]:
        """Model, seed and checkpoint."""
        return (self.model, self.seed, self.checkpoint)


def sample_of(entry: ReadRow) -> Sample:
    """Return a row as a sample; raise `ValueError` that says what is wrong with it."""
    record, example = entry.record, entry.example
    turns = example.response or []
    if not turns or turns[-1]["role"] != "assistant":
        last = turns[-1]["role"] if turns else "user"
        raise ValueError(f"'response' ends with the {last}'s turn, so it has no response")
    if len(turns) > 1:
        raise ValueError(
            f"'response' has {len(turns)} messages beyond the prompt; a response is one message of "
            "the assistant's"
        )
    if example.prompt[-1]["role"] == "assistant":
        raise ValueError("'prompt' ends with the assistant's turn; the response is apart from it")
    response = turns[0]["content"]
    row: Row = {
        "prompt_id": prompt_id(example.prompt),
        "prompt": example.prompt,
        "response": response,
        "tokens": _count(record, "tokens"),
        "words": len(words_of(response)),
        "finished": _boolean(record, "finished"),
        "logprob": _log_probability(record, "logprob"),
        "reference_logprob": _log_probability(record, "reference_logprob"),
    }
    if example.subset is not None:
        row["subset"] = example.subset
    return Sample(
        row=row,
        model=_name(record, entry.columns["model"]) or "",
        seed=_seed(record),
        checkpoint=_count(record, "checkpoint") or 0,
        scores=_scores(record),
        costs=_costs(record),
        tokenizer=_name(record, "tokenizer"),
    )


def record_of(sample: Sample) -> dict[str, Any]:
    """Return a sample as the line that `sample_of` reads; what is unknown is left out."""
    record = {
        "prompt": sample.row["prompt"],
        "response": sample.row["response"],
        "model": sample.model,
        "seed": sample.seed,
        "checkpoint": sample.checkpoint,
        "tokenizer": sample.tokenizer,
        "scores": {name: value for name, value in sample.scores.items() if value is not None},
        "costs": dict(sample.costs),
    } | {
        name: sample.row.get(name)
        for name in ("logprob", "reference_logprob", "tokens", "finished", "subset")
    }
    return {name: value for name, value in record.items() if value not in (None, {})}


def lacks(record: Mapping[str, Any]) -> str | None:
    """Say what a row lacks to be a sample; None where it lacks nothing."""
    columns = FORMATS["samples"].columns
    for part in NEEDED:
        nothing: tuple[object, ...] = ([], {}) if part == "response" else ([], {}, "")
        held = [record[name] for name in columns[part] if name in record]
        if any(not is_missing(value) and value not in nothing for value in held):
            continue
        here = ", ".join(map(str, record)) or "nothing"
        other = next((key for key in _OTHER_NAMES[part] if key in record), None)
        rename = "" if other is None else f": rename {other!r}?"
        return f"has no {part}; it has {here}{rename}"
    return None


def folded(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its scores and costs as objects, also those in columns of their own."""
    kept = {
        name: value
        for name, value in record.items()
        if not str(name).startswith(("scores.", "costs.")) and name != "score"
    }
    for key in ("scores", "costs"):
        value = structure_from(record.get(key))
        if is_missing(value) or value == "":
            value = {}
        if not isinstance(value, Mapping):
            raise ValueError(f"{key!r} is {kind_of(value)}, not an object of names and numbers")
        columns = {
            str(name).removeprefix(f"{key}."): held
            for name, held in record.items()
            if str(name).startswith(f"{key}.")
        }
        kept[key] = {str(n): held for n, held in value.items() if held is not None} | columns
    if record.get("score") is not None:
        if "score" in kept["scores"]:
            raise ValueError("has a 'score' and another one of that name among its 'scores'")
        kept["scores"]["score"] = record["score"]
    return kept


def without_nan(value: Any) -> Any:
    """Return a row of a binary table with None for NaN, which stands for an empty cell there."""
    if isinstance(value, Mapping):
        return {name: without_nan(held) for name, held in value.items()}
    return None if is_missing(value) else value


def from_cells(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a text table as values: empty ones are missing, numbers are numbers."""
    values: dict[str, Any] = {}
    for name, cell in record.items():
        if name in _TEXTS:
            values[name] = cell if cell != "" or name in _RESPONSES else None
        elif cell.strip() == "":
            values[name] = None
        elif cell.strip().lower() in ("true", "false"):
            values[name] = cell.strip().lower() == "true"
        else:
            values[name] = _number_of(structure_from(cell))
    return values


def _number_of(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _name(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if is_missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{key!r} is {kind_of(value)}, not text")
    text = str(value).strip()
    if not text or len(text) > _LONGEST_NAME:
        raise ValueError(f"{key!r} has {len(text)} characters; it needs 1 to {_LONGEST_NAME}")
    return text


def _seed(record: Mapping[str, Any]) -> str:
    value = record.get("seed")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _name(record, "seed") or "0"


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {kind_of(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is not a finite number")
    if abs(number) > _LARGEST:
        raise ValueError(f"{name} is {number:g}; at most {_LARGEST:g} can be compared")
    return number


def _log_probability(record: Mapping[str, Any], name: str) -> float | None:
    value = _number(record.get(name), repr(name))
    if value is not None and value > _ROUNDING:
        raise ValueError(
            f"{name!r} is {value:g}; a log-probability is 0 or less (a loss has the other sign)"
        )
    return value if value is None else min(value, 0.0)


def _count(record: Mapping[str, Any], name: str) -> int | None:
    value = _number(_digits(record.get(name)), repr(name))
    if value is None:
        return None
    if value < 0 or not value.is_integer():
        raise ValueError(f"{name!r} is {value:g}, not a whole number of 0 or more")
    return int(value)


def _digits(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _boolean(record: Mapping[str, Any], name: str) -> bool | None:
    value = record.get(name)
    if value is None:
        return None
    if not isinstance(value, bool):
        raise ValueError(f"{name!r} is {kind_of(value)}; write true or false, without quotes")
    return value


def _scores(record: Mapping[str, Any]) -> dict[str, float | None]:
    scores: dict[str, float | None] = {}
    for name, value in record["scores"].items():
        if not name.strip() or len(name) > _LONGEST_NAME:
            raise ValueError(f"a score's name needs 1 to {_LONGEST_NAME} characters")
        if (name in _TAKEN and name != "score") or name.endswith(_TAKEN_ENDINGS):
            raise ValueError(f"a score is named {name!r}, which is a column or metric already")
        scores[name] = _number(value, f"the score {name!r}")
    return scores


def _costs(record: Mapping[str, Any]) -> dict[str, float]:
    costs = {}
    for name, value in record["costs"].items():
        if name not in COSTS:
            raise ValueError(f"'costs' has {name!r}; costs are {', '.join(COSTS)}")
        number = _number(value, f"the cost {name!r}")
        if number is not None and number < 0:
            raise ValueError(f"the cost {name!r} is {number:g}; costs are 0 or more")
        if number is not None:
            costs[name] = number
    return costs
