"""How often the intervals of a comparison hold the truth, by simulation.

    python benchmarks/coverage.py            # 2,000 experiments a design, one core
    python benchmarks/coverage.py --quick

An experiment draws two methods' scores on shared prompts from

    score = method + prompt + (method x prompt) + seed + rest

with standard deviations 1, 0.5, a design's own and 0.7, and asks each procedure for its 95 %
interval of a known truth. "By prompts" is what is often done: a paired t interval over prompts, of
scores averaged over seeds, as if another training seed would have brought the same scores.
"Percentile" is the hierarchical bootstrap as it stands in textbooks, "corrected" ours.
"A is better" is claimed, in either direction, where p < 0.05 and there is nothing to find.
Wins are of scores rounded to halves, so that there are ties.

For length control, answers are longer by a random amount, and preference follows length, quality,
the prompt's difficulty (in one world correlated with length) and the seed.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

# Beside this file lie ones with the names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

from plumbline.statistics import (
    bradley_terry,
    contrast,
    hierarchical_bootstrap,
    instruction_difficulty,
    length_controlled,
    mean_interval,
    ranking,
    win_rate,
)

Floats = NDArray[np.float64]
PROMPT, BOTH, REST = 1.0, 0.5, 0.7


@dataclass(frozen=True)
class Design:
    """Sizes of an experiment, seeds' standard deviations, and the true difference."""

    seeds: tuple[int, int]
    prompts: int
    seed_deviations: tuple[float, float]
    difference: float = 0.5
    skewed: bool = False

    @property
    def title(self) -> str:
        a, b = self.seeds
        x, y = self.seed_deviations
        return (
            f"{a if a == b else f'{a} and {b}'} seeds, {self.prompts} prompts, "
            f"seeds {x if x == y else f'{x} and {y}'}"
            + (", skewed" if self.skewed else "")
            + (f", difference {self.difference}" if self.difference != 0.5 else "")
        )


HEADLINE = Design((5, 5), 300, (0.1, 0.1))
DESIGNS = (
    *(Design((n, n), p, (s, s)) for n in (3, 5, 10) for p in (100, 300) for s in (0.03, 0.1, 0.3)),
    Design((3, 3), 50, (0.1, 0.1)),
    Design((5, 5), 50, (0.1, 0.1)),
    Design((5, 5), 300, (0.0, 0.0)),
    Design((3, 3), 300, (0.3, 0.03)),
    Design((5, 5), 300, (0.3, 0.03)),
    Design((3, 10), 300, (0.1, 0.1)),
    Design((5, 5), 300, (0.1, 0.1), skewed=True),
    Design((5, 5), 300, (0.1, 0.1), difference=2.5),
)
QUICK = (HEADLINE, Design((3, 3), 100, (0.3, 0.3)))


def draw(design: Design, random: np.random.Generator, difference: float) -> tuple[Floats, Floats]:
    """Return two methods' scores (S, P)."""

    def noise(*shape: int) -> Floats:
        if design.skewed:
            return random.exponential(size=shape) - 1.0
        return random.normal(size=shape)

    prompts = PROMPT * noise(1, design.prompts)
    mine, other = (
        prompts
        + BOTH * noise(1, design.prompts)
        + deviation * random.normal(size=(seeds, 1))
        + REST * noise(seeds, design.prompts)
        for seeds, deviation in zip(design.seeds, design.seed_deviations, strict=True)
    )
    return mine + difference, other


def halves(scores: Floats) -> Floats:
    return np.round(2 * scores) / 2


def true_win_rate(design: Design) -> float:
    """Return the win rate over all prompts and seeds, by 4 million draws (error 0.0003)."""
    random = np.random.default_rng(99)
    wide = Design((1, 1), 1, design.seed_deviations, design.difference, design.skewed)
    size = 4_000_000
    many = Design((1, 1), size, (0.0, 0.0), design.difference, design.skewed)
    mine, other = draw(many, random, design.difference)
    mine += wide.seed_deviations[0] * random.normal(size=mine.shape)
    other += wide.seed_deviations[1] * random.normal(size=other.shape)
    return float((np.sign(halves(mine) - halves(other)).mean() + 1) / 2)


def holds(interval: object, truth: float) -> bool:
    low, high = interval.low, interval.high  # type: ignore[attr-defined]
    return bool(low <= truth <= high)


def by_prompts(mine: Floats, other: Floats, truth: float) -> bool:
    differences = mine.mean(axis=0) - other.mean(axis=0)
    interval = stats.ttest_1samp(differences, truth)
    return bool(interval.pvalue > 0.05)


def experiments(design: Design, count: int, booted: int, seed: int) -> dict[str, float]:
    """Return each procedure's coverage in one design."""
    random = np.random.default_rng(seed)
    truth, rate = design.difference, true_win_rate(design)
    results_of: dict[str, list[bool]] = {}

    def note(**results: bool) -> None:
        for name, result in results.items():
            results_of.setdefault(name, []).append(result)

    for number in range(count):
        mine, other = draw(design, random, truth)
        note(
            contrast=holds(contrast(mine, other), truth),
            by_prompts=by_prompts(mine, other, truth),
            mean_interval=holds(mean_interval(mine), truth),
            win_rate=holds(win_rate(halves(mine), halves(other)), rate),
        )
        if number < booted:
            for name, corrected in (("percentile", False), ("corrected", True)):
                interval = hierarchical_bootstrap(
                    mine, other, resamples=600, seed=number, corrected=corrected
                )
                note(**{name: holds(interval, truth)})
        mine, other = draw(design, random, 0.0)
        note(claimed=contrast(mine, other).p_value < 0.05)
        if design.seed_deviations[0] == design.seed_deviations[1]:
            note(claimed_win=win_rate(halves(mine), halves(other)).p_value < 0.05)
    return {name: float(np.mean(results)) for name, results in results_of.items()}


@dataclass(frozen=True)
class Lengths:
    """A world in which longer answers are preferred (log odds)."""

    quality: float
    effect: float = 1.2
    longer: float = 40.0
    spread: float = 60.0
    seeds: int = 5
    prompts: int = 300
    seed_deviation: float = 0.15
    #: Correlation of our extra length with how easily we win on a prompt.
    together: float = 0.0

    def truth(self) -> float:
        """Return the win rate at equal lengths, by Gauss-Hermite quadrature."""
        nodes, weights = special.roots_hermitenorm(60)
        deviation = math.hypot(self.seed_deviation, 1.0)
        curve = special.expit(self.quality + deviation * nodes)
        return float((weights * curve).sum() / weights.sum())

    def draw(self, random: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        """Return points (seeds, P), our lengths (seeds, P) and theirs (P,)."""
        shape = (self.seeds, self.prompts)
        easiness = random.normal(size=self.prompts)
        their_lengths = 200 + 40 * random.normal(size=self.prompts)
        apart = math.sqrt(1 - self.together**2) * random.normal(size=shape)
        ours = their_lengths + self.longer + self.spread * (self.together * easiness + apart)
        odds = (
            self.quality
            + self.effect * np.tanh((ours - their_lengths) / self.spread)
            + easiness
            + self.seed_deviation * random.normal(size=(self.seeds, 1))
        )
        return (random.random(shape) < special.expit(odds)).astype(float), ours, their_lengths


def length_control(world: Lengths, count: int, seed: int) -> dict[str, float]:
    random, truth = np.random.default_rng(seed), world.truth()
    raw, plain, full, covered, claimed = [], [], [], [], []
    for _ in range(count):
        points, ours, their_lengths = world.draw(random)
        gamma = instruction_difficulty(points, ours, their_lengths)
        result = length_controlled(points, ours, their_lengths, gamma)
        raw.append(result.raw)
        plain.append(length_controlled(points, ours, their_lengths).win_rate)
        full.append(result.win_rate)
        covered.append(holds(result, truth))
        claimed.append(result.p_value < 0.05)
    return {
        "truth": truth,
        "raw_bias": float(np.mean(raw)) - truth,
        "without_difficulty_bias": float(np.mean(plain)) - truth,
        "bias": float(np.mean(full)) - truth,
        "coverage": float(np.mean(covered)),
        "claimed": float(np.mean(claimed)),
    }


def ranking_coverage(count: int, seed: int) -> float:
    """Return how often a strength's interval among four methods holds it."""
    random = np.random.default_rng(seed)
    means = {"a": 0.0, "b": 0.3, "c": 0.35, "d": 1.0}
    deviations, seeds, prompts = (0.05, 0.2, 0.1, 0.1), (5, 5, 3, 5), 200
    gaps = np.subtract.outer(list(means.values()), list(means.values()))
    squares = np.add.outer(np.square(deviations), np.square(deviations))
    rates = stats.norm.cdf(gaps / np.sqrt(2 * BOTH**2 + 2 * REST**2 + squares))
    truth = dict(zip(means, bradley_terry(rates), strict=True))
    hits = []
    for _ in range(count):
        shared = random.normal(size=(1, prompts))
        scores = {
            name: mean
            + shared
            + BOTH * random.normal(size=(1, prompts))
            + deviation * random.normal(size=(number, 1))
            + REST * random.normal(size=(number, prompts))
            for (name, mean), deviation, number in zip(
                means.items(), deviations, seeds, strict=True
            )
        }
        hits += [holds(interval, truth[interval.name]) for interval in ranking(scores)]
    return float(np.mean(hits))


COLUMNS = (
    ("contrast", "contrast"),
    ("A is better, falsely", "claimed"),
    ("by prompts", "by_prompts"),
    ("percentile", "percentile"),
    ("corrected", "corrected"),
    ("level", "level"),
    ("win rate", "win_rate"),
    ("win ≠ 1/2, falsely", "claimed_win"),
)


def table(rows: Mapping[Design, Mapping[str, float]]) -> Iterator[str]:
    yield "| design | " + " | ".join(title for title, _ in COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for design, row in rows.items():
        cells = [f"{100 * row[key]:.1f}" if key in row else "" for _, key in COLUMNS]
        yield f"| {design.title} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--bootstrapped", type=int, default=500, help="experiments with bootstraps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="two designs, 200 experiments")
    arguments = parser.parse_args()
    designs = QUICK if arguments.quick else DESIGNS
    count = 200 if arguments.quick else arguments.experiments
    booted = min(count, 50 if arguments.quick else arguments.bootstrapped)

    started = time.monotonic()
    rows = {}
    for number, design in enumerate(designs):
        # The headline's bootstraps are run as often as everything else.
        rows[design] = experiments(
            design, count, count if design == HEADLINE else booted, arguments.seed + number
        )
        print(f"{design.title}: {rows[design]['contrast']:.3f}", file=sys.stderr, flush=True)
    print("\n".join(table(rows)))

    fewer = max(100, count // 4)
    lengths = {
        name: length_control(world, fewer, arguments.seed + 1000)
        for name, world in (
            ("equal", Lengths(0.0)),
            ("better", Lengths(0.8)),
            ("equal, longer where easy", Lengths(0.0, together=0.5)),
        )
    }
    print(
        "\n| length control | truth | raw bias | bias, no difficulty | bias | coverage | p < 0.05 |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, row in lengths.items():
        values = [100 * value for value in row.values()]
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    ranked = ranking_coverage(fewer, arguments.seed + 2000)
    print(f"\nstrengths of four methods: {100 * ranked:.1f}")

    head = rows[HEADLINE]
    every = [row["contrast"] for row in rows.values()]
    print(
        json.dumps(
            {
                "benchmark": "coverage",
                "experiments": count,
                "designs": len(rows),
                "coverage": round(head["contrast"], 4),
                "naive_coverage": round(head["by_prompts"], 4),
                "type_one_se": round(head["claimed"], 4),
                "percentile_bootstrap_coverage": round(head["percentile"], 4),
                "corrected_bootstrap_coverage": round(head["corrected"], 4),
                "level_coverage": round(head["level"], 4),
                "win_rate_coverage": round(head["win_rate"], 4),
                "win_rate_type_one_se": round(head["claimed_win"], 4),
                "lowest_coverage": round(min(every), 4),
                "highest_coverage": round(max(every), 4),
                "length_bias_before": round(lengths["equal"]["raw_bias"], 4),
                "length_bias_after": round(lengths["equal"]["bias"], 4),
                "length_coverage": round(lengths["equal"]["coverage"], 4),
                "length_type_one_se": round(lengths["equal"]["claimed"], 4),
                "ranking_coverage": round(ranked, 4),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
