"""Simulated labellers: they judge by a utility, with noise and biases of their own.

P(A over B) = (1 - c) sigmoid((v_A - v_B) / t) + c / 2, with v = u + l * words. This is the
Bradley-Terry model (Bradley and Terry, 1952) on the utility u, with temperature t, a bias l for
length, and a share c of coin tosses.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from annotation.questions.strength import strength_of
from annotation.sources.config import LabelerConfig, LabelingConfig
from plumbline.data.labels import Label, write_labels
from plumbline.data.records import Message, read_dataset
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import rng

TRUTH_FILE = "truth.json"
"""The probability of each outcome, which only a simulation knows. Training never reads it."""
_FIRST_DAY = datetime(2026, 1, 5, 9, tzinfo=UTC)
_SECONDS_PER_LABEL = 20


class Utility(Scorer, Protocol):
    """A scorer that can also explain its score."""

    def explain(self, prompt: Sequence[Message], response: str) -> Mapping[str, float]:
        """Return the contribution of each part to the score."""
        ...


@stage("labels")
def simulate_labels(
    stage: Stage, *, config: LabelingConfig, pairs: Artifact, utility: Utility, data_seed: int
) -> Mapping[str, float | None]:
    """Let simulated labellers vote on pairs."""
    rows = read_dataset(pairs.path, "train")
    prompts = [row["prompt"] for row in rows]
    texts = {side: [row[side][-1]["content"] for row in rows] for side in ("a", "b")}
    utilities = {side: utility.score(prompts, texts[side]) for side in ("a", "b")}

    labels: list[Label] = []
    truth: dict[str, float] = {}
    for number, row in enumerate(rows):
        random = rng(data_seed, "labels", row["pair_id"])
        seen_as = {side: (utilities[side][number], texts[side][number]) for side in ("a", "b")}
        prefers_a = {
            labeler.name: probability_of_a(labeler, seen_as["a"], seen_as["b"])
            for labeler in config.labelers
        }
        for labeler in random.sample(config.labelers, config.votes):
            p_a = prefers_a[labeler.name]
            choice: Literal["a", "b"] = "a" if random.random() < p_a else "b"
            rejected: Literal["a", "b"] = "b" if choice == "a" else "a"
            labels.append(
                Label(
                    pair_id=row["pair_id"],
                    annotator=labeler.name,
                    source="simulated",
                    choice=choice,
                    created_at=_time_of(len(labels)),
                    shown_first="a" if random.random() < 0.5 else "b",
                    rationale=reason_for(
                        utility, row["prompt"], texts[choice][number], texts[rejected][number]
                    ),
                    strength=strength_of(p_a if choice == "a" else 1 - p_a),
                )
            )
        truth[row["pair_id"]] = outcome_probability(list(prefers_a.values()), config.votes)
    write_labels(stage.folder, labels)
    write_json(stage.folder / TRUTH_FILE, truth)
    agree = [
        (label.choice == "a")
        == (utilities["a"][n // config.votes] > utilities["b"][n // config.votes])
        for n, label in enumerate(labels)
    ]
    return {
        "labels": float(len(labels)),
        "pairs": float(len(rows)),
        "agreement_with_gold": sum(agree) / len(agree),
    }


def probability_of_a(labeler: LabelerConfig, a: tuple[float, str], b: tuple[float, str]) -> float:
    """Return the probability that a labeller prefers A; each side is (utility, text)."""
    seen = [utility + labeler.likes_length * len(text.split()) for utility, text in (a, b)]
    preference = _sigmoid((seen[0] - seen[1]) / labeler.temperature)
    return (1 - labeler.careless) * preference + labeler.careless / 2


def outcome_probability(probabilities: Sequence[float], votes: int) -> float:
    """Return the probability that A wins when so many of these voters, drawn at random, vote.

    Nobody who judges the texts knows who will vote, not even the best possible judge.
    """
    panels = list(itertools.combinations(probabilities, votes))
    return sum(map(majority_probability, panels)) / len(panels)


def majority_probability(probabilities: Sequence[float]) -> float:
    """Return the probability that A wins the vote of independent voters; a tie counts half."""
    won = 0.0
    for votes in itertools.product((True, False), repeat=len(probabilities)):
        chance = math.prod(
            p if vote else 1 - p for p, vote in zip(probabilities, votes, strict=True)
        )
        lead = 2 * sum(votes) - len(votes)
        won += chance * (1.0 if lead > 0 else 0.5 if lead == 0 else 0.0)
    return won


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _time_of(number: int) -> str:
    """Return the time of a simulated label, by a clock that is the same in every run."""
    return (_FIRST_DAY + timedelta(seconds=_SECONDS_PER_LABEL * number)).isoformat()


def reason_for(utility: Scorer, prompt: Sequence[Message], chosen: str, other: str) -> str:
    """Return what speaks most for the chosen response, where the utility can explain its score."""
    explain = getattr(utility, "explain", None)
    if explain is None:
        return "It reads better to me."
    mine: Mapping[str, float] = explain(prompt, chosen)
    scores_of_other: Mapping[str, float] = explain(prompt, other)
    lead = {name: mine[name] - scores_of_other[name] for name in mine}
    best = max(lead, key=lambda name: lead[name])
    return f"Better on {best}." if lead[best] > 0 else "Hard to say; it reads better to me."
