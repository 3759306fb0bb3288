"""Pairs on their way to a reward model: ids, what their rows say, and batches of them."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from plumbline.data.records import Conversation, Row
from plumbline.errors import DataError
from plumbline.lm.branches import Branches
from plumbline.runs.artifacts import Artifact
from plumbline.training.pairs import EncodedPair
from plumbline.training.row_file import LazyRows
from reward.config import RewardConfig
from reward.losses import LOSSES, PairLabels, length_effect, level_thresholds

#: Where the aggregation keeps the pairs that prefer neither response.
UNDECIDED = "undecided.jsonl"
#: Before the name of an aspect, among the numbers of a pair.
ASPECT = "aspect/"
#: The column that marks a pair as a tie in what `with_ties` returns.
_IS_TIE = "is_tie"


class RewardExample(NamedTuple):
    """A pair as ids, with the numbers that its loss reads, by the names of `PairLabels`."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class RewardBatch:
    """Pairs that are read together. Shapes: ``B`` pairs."""

    branches: Branches
    """Each prompt with its chosen and its rejected response."""
    numbers: Mapping[str, Tensor]
    """[B] each."""

    @property
    def tokens_seen(self) -> int:
        """Tokens of each response behind a prompt of its own, however the pass lays them out."""
        return sum(
            len(prompt) + len(response)
            for prompt, several in zip(*self.branches, strict=True)
            for response in several
        )


def collate(examples: Sequence[RewardExample]) -> dict[str, RewardBatch]:
    """Return a batch, under the name by which the trainer finds it."""
    branches = Branches(
        [list(example.prompt_ids) for example in examples],
        [[list(example.chosen_ids), list(example.rejected_ids)] for example in examples],
    )
    numbers = {
        name: torch.tensor([example.numbers[name] for example in examples])
        for name in examples[0].numbers
    }
    return {"pairs": RewardBatch(branches, numbers)}


def reward_examples(
    pairs: Sequence[EncodedPair], config: RewardConfig, origin: str
) -> tuple[LazyRows[RewardExample], PairLabels]:
    """Return examples with the numbers of their rows, and labels that are the same for all.

    Raises `DataError` where a column is missing, or has what is not such a number.
    """
    rows = LazyRows(len(pairs), lambda number: pairs[number].row)
    uses = LOSSES[config.loss].uses
    common = PairLabels(
        probability=1 - config.label_smoothing,
        flip_rate=config.flip_rate if "flip_rate" in uses else 0.0,
        tie_share=config.tie_share,
        power=config.power,
    )
    columns: dict[str, array[float]] = {}
    if config.soft_labels is not None:
        columns["probability"] = numbers_in(
            rows, "soft_labels", config.soft_labels, origin, least=0, most=1
        )
    if config.margins is not None:
        strengths = numbers_in(rows, "margins", config.margins, origin)
        if "strength" in uses:
            columns["strength"] = strengths
        else:
            columns["margin"] = array("d", (config.margin_scale * x for x in strengths))
    if config.reliability is not None:
        sure = numbers_in(rows, "reliability", config.reliability, origin, least=0.5, most=1)
        # At 1/2 a label says nothing, and its loss has no slope.
        columns["flip_rate"] = array("d", (1 - value for value in sure))
    if "tie" in uses:
        columns["tie"] = array("d", map(_share_of_ties, rows))
    if config.ratings is not None:
        common = common._replace(**_add_ratings(columns, rows, config, origin))
    for name, aspect in config.aspects.items():
        columns[f"{ASPECT}{name}"] = _aspect_labels(rows, name, aspect.labels, origin)
    if config.length_correction:
        _add_length_effect(columns, pairs, config)

    def read(number: int) -> RewardExample:
        pair = pairs[number]
        return RewardExample(
            pair.prompt_ids,
            pair.chosen_ids,
            pair.rejected_ids,
            {name: values[number] for name, values in columns.items()},
        )

    return LazyRows(len(pairs), read), common


def numbers_in(
    rows: Iterable[Row],
    setting: str,
    column: str,
    origin: str,
    *,
    least: float = -math.inf,
    most: float = math.inf,
) -> array[float]:
    """Return the numbers of a column, ``least`` to ``most``.

    Raises `DataError` where there is no such column, or a row has no such number there.
    """
    numbers = array("d")
    for row in rows:
        value: Any = row.get(column)
        if column not in row:
            known = [name for name, held in row.items() if isinstance(held, float)]
            close = difflib.get_close_matches(column, list(row), n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Columns of numbers: {known}."
            hint += " Of a file, those are kept that preferences.keep names."
            raise DataError(
                f"reward.{setting} is {column!r}, but {origin} has no such column. {hint} Name one "
                f"that is there, or set reward.{setting} to null."
            )
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not least <= value <= most:
            bounds = "".join(
                f" {word} {bound:g}"
                for word, bound in (("from", least), ("to", most))
                if math.isfinite(bound)
            )
            raise DataError(
                f"{origin}, pair {row.get('pair_id', '?')}: {column!r} is {value!r}, which is not "
                f"a number{bounds}, as reward.{setting} needs in every row. Name another column, "
                f"or set reward.{setting} to null."
            )
        numbers.append(float(value))
    return numbers


def _aspect_labels(rows: Sequence[Row], name: str, column: str, origin: str) -> array[float]:
    """Return the labels of an aspect; not a number where a row has null."""
    known = (row for row in rows if row.get(column, 0) is not None)
    labels = numbers_in(known, f"aspects.{name}.labels", column, origin, least=0, most=1)
    if not labels:
        raise DataError(
            f"No row of {origin} has a label of the aspect {name!r} in {column!r}, so its output "
            "would stay random. Name another column, or leave the aspect out."
        )
    numbers = iter(labels)
    return array(
        "d", (next(numbers) if row.get(column, 0) is not None else math.nan for row in rows)
    )


def ties_of(preferences: Artifact) -> list[Row]:
    """Return the pairs that the votes called a tie, as preference rows in which no side is better.

    Raises `DataError` where the dataset keeps no such pairs.
    """
    file = preferences.path / UNDECIDED
    if not file.exists():
        raise DataError(
            f"reward.ties is on, but {preferences.id} keeps no undecided pairs ({UNDECIDED}), as "
            "preferences from votes do. Set reward.ties: false, or take another reward.loss."
        )
    lines = file.read_text(encoding="utf-8").splitlines()
    return [
        {**row, "chosen": row["a"], "rejected": row["b"], _IS_TIE: True}
        for row in map(json.loads, lines)
        if row["outcome"] == "tie"
    ]


def count_contradictions(pairs: Iterable[EncodedPair]) -> int:
    """Return how many pairs stand there the other way round, too, so that one of two is wrong.

    Pairs are compared by a digest of 64 bits: of a million, two differing ones have the same with
    a probability of 5e-8.
    """
    both = array("Q")
    for pair in pairs:
        chosen, rejected = (
            array("i", ids).tobytes() for ids in (pair.chosen_ids, pair.rejected_ids)
        )
        prompt = pair.prompt_id.encode()
        both.extend((_digest(prompt, chosen, rejected), _digest(prompt, rejected, chosen)))
    digests = np.frombuffer(both, dtype=np.uint64).reshape(-1, 2)
    return int(np.isin(digests[:, 0], digests[:, 1]).sum())


def _digest(*parts: bytes) -> int:
    """Return 8 bytes of a digest of parts, each with its length, as a number."""
    content = hashlib.blake2b(digest_size=8)
    for part in parts:
        content.update(len(part).to_bytes(8) + part)
    return int.from_bytes(content.digest())


def _share_of_ties(row: Row) -> float:
    """Return the probability of a tie: 1 of a pair that was one, else the share of such votes."""
    if row.get(_IS_TIE):
        return 1.0
    tally: Mapping[str, int] = row.get("tally") or {}
    counted = sum(tally.get(choice, 0) for choice in ("a", "b", "tie"))
    return tally.get("tie", 0) / counted if counted else 0.0


def _add_ratings(
    columns: dict[str, array[float]], rows: Sequence[Row], config: RewardConfig, origin: str
) -> dict[str, Any]:
    """Add both responses' ratings; return what else the loss must know of them."""
    assert config.ratings is not None
    chosen, rejected = (numbers_in(rows, "ratings", name, origin) for name in config.ratings)
    if "levels" not in LOSSES[config.loss].uses:
        columns |= {"chosen_rating": chosen, "rejected_rating": rejected}
        return {}
    levels = {value: level for level, value in enumerate(sorted({*chosen, *rejected}))}
    if not 2 <= len(levels) <= 100:
        raise DataError(
            f"The ratings of {origin} in {' and '.join(config.ratings)} have {len(levels)} "
            "different values, and ordinal ratings have 2 to 100. Name other columns, or set "
            "reward.loss: regression."
        )
    of_chosen, of_rejected = (array("l", map(levels.__getitem__, x)) for x in (chosen, rejected))
    columns["chosen_rating"] = array("d", of_chosen)
    columns["rejected_rating"] = array("d", of_rejected)
    return {"thresholds": level_thresholds(of_chosen + of_rejected)}


def _add_length_effect(
    columns: dict[str, array[float]], pairs: Sequence[EncodedPair], config: RewardConfig
) -> None:
    """Take what length alone explains of the labels from what the reward is to explain.

    The log-odds of a pair are then r(chosen) - r(rejected) + effect, with the effect of the length
    difference as a negative margin.
    """
    differences = array("d", (len(pair.chosen_ids) - len(pair.rejected_ids) for pair in pairs))
    scale = math.sqrt(sum(x * x for x in differences) / len(differences)) or 1.0
    scaled = array("d", (x / scale for x in differences))
    probabilities = columns.get(
        "probability", array("d", [1 - config.label_smoothing]) * len(pairs)
    )
    effect = config.length_correction * length_effect(scaled, probabilities)
    margins = columns.get("margin", array("d", [0.0]) * len(pairs))
    columns["margin"] = array("d", (m - effect * x for m, x in zip(margins, scaled, strict=True)))


def responses(rows: Sequence[Row], side: str) -> tuple[Sequence[Conversation], Sequence[str]]:
    """Return prompts and responses of one side of pairs, as a scorer takes them."""
    return (
        LazyRows(len(rows), lambda number: rows[number]["prompt"]),
        LazyRows(len(rows), lambda number: rows[number][side][-1]["content"]),
    )
