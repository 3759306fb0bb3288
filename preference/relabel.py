"""Preferences labelled again by a reward model, or by several of them, where these are sure.

The source of each label stays with its row, so that labels of people and of models can be mixed
and still be distinguished.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from plumbline.data.records import Row, iterate_dataset, prompts_of, write_dataset
from plumbline.dropped import DroppedFile, LeftOut
from plumbline.errors import DataError
from plumbline.hooks import Scorer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.processes import scores_of
from preference.pairs_config import RelabelConfig

SOURCE = "label_source"
"""The column that says whose label it is: human or model."""
#: Pairs that are in memory at once, with their scores.
_SCORED_AT_ONCE = 10_000


class Opinion(NamedTuple):
    """What scorers together think of a pair."""

    probability: float
    """Mean over the scorers of sigma(score of chosen - score of rejected)."""
    margin: float
    """Mean difference of the scores."""
    agreement: float
    """Share of the scorers that prefer the response that most of them prefer; ties count half."""

    @property
    def confidence(self) -> float:
        """Probability of the response that they prefer, from 0.5 to 1."""
        return max(self.probability, 1 - self.probability)


def opinion_of(differences: Sequence[float]) -> Opinion:
    """Return what scorers think of a pair, of each scorer's difference chosen - rejected."""
    probabilities = [0.5 * (1 + math.tanh(difference / 2)) for difference in differences]
    for_chosen = sum(0.5 if d == 0 else float(d > 0) for d in differences) / len(differences)
    return Opinion(
        statistics.fmean(probabilities),
        statistics.fmean(differences),
        max(for_chosen, 1 - for_chosen),
    )


def relabeled(row: Row, opinion: Opinion, config: RelabelConfig) -> Row | None:
    """Return a row with the scorers' label, with its own where they are unsure, or None.

    ``soft_label`` is the probability that the chosen response is the better, ``margin`` the mean
    difference of the scores, at least 0.
    """
    sure = opinion.confidence >= config.confidence and opinion.agreement >= config.agreement
    if not sure:
        return row | {SOURCE: "human"} if config.unsure == "keep" else None
    new = {SOURCE: "model", "soft_label": opinion.confidence, "margin": abs(opinion.margin)}
    if opinion.probability < 0.5:
        return row | new | {"chosen": row["rejected"], "rejected": row["chosen"]}
    return row | new


@stage("preferences", spreads_rows=True)
def relabel_preferences(
    stage: Stage,
    *,
    config: RelabelConfig,
    preferences: Artifact,
    scorers: Sequence[Scorer],
) -> Mapping[str, float | None]:
    """Label the training pairs of preferences again; held-out pairs keep their labels."""
    silence_libraries()
    dropped, read = DroppedFile(stage.folder), _Counts()
    counts = write_dataset(
        stage.folder,
        {
            "train": _labeled_again(preferences, scorers, config, dropped, read),
            "test": iterate_dataset(preferences.path, "test"),
        },
        kind="preference",
        title="Preferences labelled again",
        description=f"The pairs of {preferences.id}; {SOURCE} says whose label each has.",
        dropped=dropped,
    )
    stage.report_dropped(dropped)
    return {
        "pairs": counts["train_rows"],
        "model_share": read.by_model / counts["train_rows"],
        "agreement_with_labels": read.agree / read.pairs,
        "dropped_rows": counts["dropped_rows"],
    }


@dataclass
class _Counts:
    """Counts of the pairs that were read."""

    pairs: int = 0
    agree: int = 0
    """The scorers prefer the chosen response."""
    by_model: int = 0
    """Kept with the scorers' label."""


def _labeled_again(
    preferences: Artifact,
    scorers: Sequence[Scorer],
    config: RelabelConfig,
    dropped: LeftOut,
    counts: _Counts,
) -> Iterator[Row]:
    """Yield the training pairs that are kept. Raises `DataError` at the end where none is."""
    rows, kept = iterate_dataset(preferences.path, "train"), 0
    while part := list(islice(rows, _SCORED_AT_ONCE)):
        for row, opinion in zip(part, opinions_on(part, scorers), strict=True):
            counts.pairs += 1
            counts.agree += opinion.probability > 0.5
            new = relabeled(row, opinion, config)
            if new is None:
                reason = "the scorers are not sure of it"
                dropped.add("preferences", counts.pairs, reason, row)
                continue
            kept += 1
            counts.by_model += new[SOURCE] == "model"
            yield new
    if not kept:
        raise DataError(
            f"The scorers are sure of none of {counts.pairs} pairs. Lower relabel.confidence "
            f"({config.confidence:g}) or relabel.agreement ({config.agreement:g}), or set "
            "relabel.unsure to keep."
        )


def opinions_on(rows: Sequence[Row], scorers: Sequence[Scorer]) -> list[Opinion]:
    """Return what the scorers together think of each pair.

    Each scorer has a scale of its own, so they must be calibrated.
    """
    prompts = prompts_of(rows)
    sides = [[row[side][-1]["content"] for row in rows] for side in ("chosen", "rejected")]
    differences = []
    for scorer in scorers:
        chosen, rejected = (scores_of(scorer, prompts, responses) for responses in sides)
        differences.append([c - r for c, r in zip(chosen, rejected, strict=True)])
    return [opinion_of(of_pair) for of_pair in zip(*differences, strict=True)]
