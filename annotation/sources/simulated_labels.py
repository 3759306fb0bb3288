"""Simulated labellers: they judge by a utility, through noise and habits of their own.

P(A over B) = (1 - c) sigmoid((v_A - v_B) / t) + c / 2, with v = u + l * words: the Bradley-Terry
model (Bradley and Terry, 1952) on the utility u as this labeller sees it, with temperature t, a
liking l for length, and a share c of coin tosses.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from annotation.config import LabelerConfig, LabelingConfig
from plumbline.data.labels import Choice, Label, write_labels
from plumbline.data.records import Message, Row, read_dataset
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import rng

TRUTH_FILE = "truth.json"
"""What only a simulation knows: the probability of each outcome. Training never reads it."""
_FIRST_DAY = datetime(2026, 1, 5, 9, tzinfo=UTC)
_SECONDS_A_LABEL = 20


class Utility(Scorer, Protocol):
    """A scorer that can also say what its score is made of."""

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
        judged = {side: (utilities[side][number], texts[side][number]) for side in ("a", "b")}
        prefers_a = {
            labeler.name: probability_of_a(labeler, judged["a"], judged["b"])
            for labeler in config.labelers
        }
        for labeler in random.sample(config.labelers, config.votes):
            p_a = prefers_a[labeler.name]
            choice: Choice = "a" if random.random() < p_a else "b"
            labels.append(
                Label(
                    pair_id=row["pair_id"],
                    annotator=labeler.name,
                    source="simulated",
                    choice=choice,
                    created_at=_time_of(len(labels)),
                    shown_first="a" if random.random() < 0.5 else "b",
                    rationale=_rationale(utility, row, choice),
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
    judged = _sigmoid((seen[0] - seen[1]) / labeler.temperature)
    return (1 - labeler.careless) * judged + labeler.careless / 2


def outcome_probability(probabilities: Sequence[float], votes: int) -> float:
    """Return the probability that A wins when so many of these voters, drawn at random, vote.

    Whoever judges texts cannot know who will vote, and neither does the best possible judge.
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


def strength_of(confidence: float) -> int:
    """Return by how much a labeller says one is better, who was this likely to choose it."""
    return 3 if confidence > 0.95 else 2 if confidence > 0.75 else 1


def _time_of(number: int) -> str:
    """Return when the simulated label was given: a clock of its own, the same in every run."""
    return (_FIRST_DAY + timedelta(seconds=_SECONDS_A_LABEL * number)).isoformat()


def _rationale(utility: Utility, row: Row, choice: Choice) -> str:
    """Name what speaks most for the chosen response, as the utility sees it."""
    other = "b" if choice == "a" else "a"
    mine, theirs = (
        utility.explain(row["prompt"], row[side][-1]["content"]) for side in (choice, other)
    )
    part: Callable[[str], float] = lambda name: mine[name] - theirs[name]  # noqa: E731
    best = max(mine, key=part)
    return f"Better on {best}." if part(best) > 0 else "Hard to say; it reads better to me."
