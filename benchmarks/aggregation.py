"""Which way of aggregating votes is right more often, when some of the people are careless.

    python benchmarks/aggregation.py
    python benchmarks/aggregation.py --seeds 3 --pairs 200 --overlaps 3

Pairs are two clerks' answers to prompts of the embedded world, and the better of the two is the
one with the larger gold utility. People judge by the simulated labellers' model (Bradley-Terry
noise, with habits); a share of them answers 90 % of pairs by a coin toss. Each method sees the
same votes; a pair without an outcome counts half. "+ gold" also sees every person's answers to a
few gold items, which are clear pairs.

Accuracy is over all pairs, its interval (95 %, Student's t) over seeds; gains over the majority
are paired by seed. Adjudication gives a budget of pairs to a senior labeller who is always right:
those that come first in the queue, or as many at random.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from scipy import stats

# Beside this file lies one with the name of our package, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

from annotation.aggregation.adjudication import adjudication_queue
from annotation.aggregation.config import AdjudicationConfig, AggregationConfig, Method
from annotation.aggregation.consensus import Consensus, reach_consensus
from annotation.aggregation.votes import counted_votes
from annotation.sources.config import LabelerConfig
from annotation.sources.simulated_labels import probability_of_a
from plumbline.data.labels import Choice, Label
from plumbline.seeds import derive, rng
from plumbline.world.clerks import Style, answer
from plumbline.world.data import prompts
from plumbline.world.gold import GoldUtility

#: The first three of the labellers that the world has by default, and one who hardly looks.
HONEST = (
    {"temperature": 0.15},
    {"temperature": 0.5},
    {"temperature": 0.25, "likes_length": 0.05},
)
CARELESS = {"temperature": 0.25, "careless": 0.9}
#: Gold items are what experts agree on: pairs whose utilities differ by at least as many points.
CLEAR = 1.0
#: Shown name, method, and whether it sees gold items.
METHODS: tuple[tuple[str, Method, bool], ...] = (
    ("majority", "majority", False),
    ("weighted", "weighted", False),
    ("weighted + gold", "weighted", True),
    ("dawid_skene", "dawid_skene", False),
    ("dawid_skene + gold", "dawid_skene", True),
    ("glad", "glad", False),
    ("mace", "mace", False),
)
TIME = "2026-01-05T09:00:00+00:00"


@dataclass(frozen=True)
class Pair:
    """Two answers with their gold utilities."""

    pair_id: str
    a: tuple[float, str]
    b: tuple[float, str]

    @property
    def better(self) -> Choice:
        return "a" if self.a[0] > self.b[0] else "b"


def world_pairs(seed: int, count: int) -> list[Pair]:
    """Return pairs of clerks' answers of different worth."""
    utility, pairs = GoldUtility(seed), []
    for number, prompt in enumerate(prompts(seed, 3 * count, "preferences")):
        random = rng(seed, "benchmark pairs", number)
        texts = [answer(utility.shop, prompt, Style.sample(random)) for _ in range(2)]
        scores = utility.score([prompt, prompt], texts)
        if scores[0] != scores[1]:
            pairs.append(Pair(f"p{number}", (scores[0], texts[0]), (scores[1], texts[1])))
        if len(pairs) == count:
            return pairs
    raise SystemExit(f"the world gave only {len(pairs)} pairs of different worth")


def people(count: int, careless: float) -> list[LabelerConfig]:
    """Return labellers, of whom a share is careless."""
    lazy = round(count * careless)
    habits = [CARELESS] * lazy + [HONEST[n % len(HONEST)] for n in range(count - lazy)]
    return [LabelerConfig(name=f"person {n:02d}", **habit) for n, habit in enumerate(habits)]


def judgment(person: LabelerConfig, pair: Pair, random: Random, **changes: Any) -> Label:
    choice: Choice = "a" if random.random() < probability_of_a(person, pair.a, pair.b) else "b"
    return Label(pair.pair_id, person.name, "simulated", choice, TIME, "a", **changes)


@dataclass(frozen=True)
class Campaign:
    """Labels of one simulated campaign, and what is true."""

    votes: list[Label]
    gold: list[Label]
    truth: dict[str, Choice]
    answers: dict[str, Choice]


def campaign(seed: int, careless: float, overlap: int, arguments: argparse.Namespace) -> Campaign:
    everything = world_pairs(seed, arguments.pairs + 10 * arguments.gold)
    pairs, others = everything[: arguments.pairs], everything[arguments.pairs :]
    gold = [pair for pair in others if abs(pair.a[0] - pair.b[0]) >= CLEAR][: arguments.gold]
    staff = people(arguments.people, careless)
    random = rng(seed, "benchmark votes", str(careless), overlap)
    return Campaign(
        [judgment(p, pair, random) for pair in pairs for p in random.sample(staff, overlap)],
        [judgment(p, pair, random, purpose="gold") for pair in gold for p in staff],
        {pair.pair_id: pair.better for pair in pairs},
        {pair.pair_id: pair.better for pair in gold},
    )


def accuracy(choices: Mapping[str, Choice | None], truth: Mapping[str, Choice]) -> float:
    points = [
        0.5 if choices[p] is None else float(choices[p] == right) for p, right in truth.items()
    ]
    return statistics.mean(points)


def choices(consensus: Consensus) -> dict[str, Choice | None]:
    return {pair_id: outcome.choice for pair_id, outcome in consensus.outcomes.items()}


def measure(campaign: Campaign, seed: int, budget: int) -> dict[str, float]:
    """Return the accuracy of every method on one campaign, and what adjudication adds."""
    config = AggregationConfig()
    votes, gold = (counted_votes(labels, config) for labels in (campaign.votes, campaign.gold))
    accuracies: dict[str, float] = {}
    for name, method, sees_gold in METHODS:
        consensus = reach_consensus(
            votes,
            method,
            gold=gold if sees_gold else (),
            answers=campaign.answers,
            seed=derive(seed, "mace"),
        )
        outcomes = choices(consensus)
        accuracies[name] = accuracy(outcomes, campaign.truth)
        if name in ("majority", "weighted + gold"):
            accuracies |= adjudicated(name, method, sees_gold, outcomes, campaign, seed, budget)
    return accuracies


def adjudicated(
    name: str,
    method: Method,
    sees_gold: bool,
    outcomes: Mapping[str, Choice | None],
    campaign: Campaign,
    seed: int,
    budget: int,
) -> dict[str, float]:
    """Return the accuracy after a senior labeller saw a budget of pairs, by queue and at random."""
    # All pairs that are not certain are queued, so that the order alone decides who is seen.
    everything = AdjudicationConfig(min_share=1.0, min_confidence=1.0)
    labels = [*campaign.votes, *campaign.gold] if sees_gold else campaign.votes
    queue = adjudication_queue(
        labels, everything, AggregationConfig(method=method), answers=campaign.answers, seed=seed
    )
    first = [case.pair_id for case in queue[:budget]]
    chance = rng(seed, "benchmark adjudication").sample(sorted(campaign.truth), len(first))
    after = {
        way: accuracy({**outcomes, **{p: campaign.truth[p] for p in seen}}, campaign.truth)
        for way, seen in (("queue", first), ("random", chance))
    }
    return {f"{name}, {way} adjudicated": value for way, value in after.items()}


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and half the width of its 95 % interval by Student's t."""
    half = 0.0
    if len(values) > 1:
        error = statistics.stdev(values) / len(values) ** 0.5
        half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return {"mean": round(statistics.mean(values), 4), "half_width": round(half, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--gold", type=int, default=10, help="gold items, shown to everybody")
    parser.add_argument("--careless", type=float, nargs="+", default=[0.0, 0.25, 0.5])
    parser.add_argument("--overlaps", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--budget", type=float, default=0.1, help="share of pairs to adjudicate")
    arguments = parser.parse_args()

    started, cells = time.monotonic(), []
    for careless in arguments.careless:
        for overlap in arguments.overlaps:
            runs = [
                measure(
                    campaign(seed, careless, overlap, arguments),
                    seed,
                    round(arguments.budget * arguments.pairs),
                )
                for seed in range(arguments.seeds)
            ]
            accuracies = {name: [run[name] for run in runs] for name in runs[0]}
            base = accuracies["majority"]
            cell = {
                "careless": careless,
                "overlap": overlap,
                "accuracy": {name: interval(values) for name, values in accuracies.items()},
                "gain_over_majority": {
                    name: interval([v - b for v, b in zip(values, base, strict=True)])
                    for name, values in accuracies.items()
                    if name != "majority"
                },
            }
            cells.append(cell)
            show(cell)
    result = {
        "benchmark": "aggregation",
        **{k: v for k, v in vars(arguments).items() if k not in ("careless", "overlaps")},
        "seconds": round(time.monotonic() - started, 1),
        "cells": cells,
    }
    print(json.dumps(result))


def show(cell: Mapping[str, Any]) -> None:
    print(f"\n{cell['careless']:.0%} careless, {cell['overlap']} votes per pair", flush=True)
    for name, value in cell["accuracy"].items():
        gain = cell["gain_over_majority"].get(name)
        text = f"  {name:<38} {value['mean']:.3f} ± {value['half_width']:.3f}"
        if gain is not None:
            text += f"   {gain['mean']:+.3f} ± {gain['half_width']:.3f}"
        print(text, flush=True)


if __name__ == "__main__":
    main()
