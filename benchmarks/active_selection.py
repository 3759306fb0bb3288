"""How many labels does active selection save, on the embedded world?

    python benchmarks/active_selection.py            # five seeds, an hour on one core
    python benchmarks/active_selection.py --quick    # the same with tiny settings, for a look

1. Once: the quickstart's base model and SFT policy, a pool of pairs of its answers, and held-out
   pairs that answer other prompts.
2. For each seed: simulated labellers vote on every pair (the votes lie hidden until a pair is
   chosen); a first batch is chosen uniformly, the same for every strategy.
3. For each strategy, in rounds: train an ensemble of reward models on what is labelled, measure
   it on the held-out pairs, and choose the next batch by it.
4. Labels that uniform selection needs to be as accurate as the strategy is at its budget. Both
   curves are means over seeds, made monotone (isotonic regression) and interpolated; the
   intervals are percentiles of a bootstrap over seeds, which are paired.

Accuracy is that of a single reward model, averaged over the ensemble: the expected share of
held-out pairs on which a new panel of labellers would agree with it (known exactly in a
simulation), and the share on which the gold utility does. Everything is a stage, so a killed run
resumes. Progress goes to stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
# Beside this script lies another with the name of a package, and Python looks there first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

from annotation.aggregation.aggregate import preference
from annotation.aggregation.votes import plurality
from annotation.selection.config import SelectionConfig
from annotation.selection.select_pairs import select_pairs
from annotation.sources.simulated_labels import TRUTH_FILE, simulate_labels
from benchmarks.labels_needed import UNIFORM, compare
from plumbline.config import Config, load
from plumbline.data.labels import read_labels
from plumbline.data.records import Row, prompts_of, read_dataset, write_dataset
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact, read_json
from plumbline.runs.calls import defer
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.runs.stage import Stage, stage
from plumbline.world.gold import GoldUtility
from preference.pairs import sample_pairs
from recipes._shared import World, train_sft_policy
from recipes.dpo_vs_ppo import DpoVsPpoConfig
from recipes.dpo_vs_ppo import __file__ as RECIPE_FILE
from reward.config import RewardConfig
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model

ACCURACIES = ("expected_accuracy", "gold_accuracy")


class BenchmarkConfig(Config):
    """What the comparison is made with."""

    recipe: DpoVsPpoConfig
    """The quickstart: base, SFT policy, sampling, labellers, reward model."""
    pool_prompts: int = 520
    """Prompts whose pairs may be chosen."""
    held_out_prompts: int = 220
    """Other prompts, whose pairs measure accuracy."""
    budgets: tuple[int, ...] = (64, 112, 160, 240)
    """Labels after each round; the first batch is uniform for all."""
    further: tuple[int, ...] = (360,)
    """Further budgets for uniform alone, so that its curve reaches the others' accuracy."""
    members: int = Field(3, ge=2)
    """Reward models in an ensemble."""
    batch_size: int = 8
    """Pairs in an optimiser step of a reward model."""
    epochs: float = 3.0
    """Passes of a reward model over its labels, as long as that makes min_steps."""
    min_steps: int = 48
    """Fewest optimiser steps, so that few labels are learnt at all."""
    calibrated_on: int = 100
    """Held-out pairs that set the scale of a reward model's scores."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of votes, first batches and reward models."""
    strategies: tuple[str, ...] = (UNIFORM, "disagreement", "diverse")
    """What is compared; uniform must be there."""


@stage("preferences")
def reveal_labels(
    stage: Stage,
    *,
    chosen: Sequence[Artifact],
    labels: Artifact,
    held_out: Artifact,
    held_out_labels: Artifact,
    calibrated_on: int,
) -> Mapping[str, float | None]:
    """Make preferences of the chosen pairs (train) and of the held-out ones (test)."""
    train = [row for batch in chosen for row in read_dataset(batch.path, "train")]
    test = read_dataset(held_out.path, "train")[:calibrated_on]
    splits = {"train": decided(train, labels), "test": decided(test, held_out_labels)}
    write_dataset(stage.folder, splits, kind="preference", title="Revealed", description="")
    truth = read_json(labels.path / TRUTH_FILE)
    newest = read_dataset(chosen[-1].path, "train")
    return {
        "labels": float(len(splits["train"])),
        "calibrated_on": float(len(splits["test"])),
        # How clear the newest batch is to people: 0.5 is a coin toss, 1 is certain.
        "batch_clarity": float(
            np.mean([max(truth[r["pair_id"]], 1 - truth[r["pair_id"]]) for r in newest])
        ),
    }


def decided(rows: Sequence[Row], labels: Artifact) -> list[Row]:
    """Return the pairs as preferences by majority; three votes without ties always have one."""
    votes: dict[str, list[Any]] = {row["pair_id"]: [] for row in rows}
    for label in read_labels(labels.path):
        if label.pair_id in votes:
            votes[label.pair_id].append(label)
    preferences = []
    for row in rows:
        outcome = plurality(label.choice for label in votes[row["pair_id"]])
        if outcome not in ("a", "b"):
            raise ValueError(f"no majority on {row['pair_id']}")
        preferences.append(preference(row, outcome, votes[row["pair_id"]]))
    return preferences


@stage("accuracy")
def measure_accuracy(
    stage: Stage,
    *,
    scorers: Sequence[Scorer],
    held_out: Artifact,
    labels: Artifact,
    utility: Scorer,
) -> Mapping[str, float | None]:
    """Measure reward models on held-out pairs: each alone, averaged, and the ensemble's mean."""
    rows = read_dataset(held_out.path, "train")
    truth = read_json(labels.path / TRUTH_FILE)
    p_a = np.array([truth[row["pair_id"]] for row in rows])

    def deltas(scorer: Scorer) -> Any:
        a, b = (
            scorer.score(prompts_of(rows), [row[side][-1]["content"] for row in rows])
            for side in ("a", "b")
        )
        return np.subtract(a, b)

    gold = deltas(utility)
    members = np.array([deltas(scorer) for scorer in scorers])

    def expected(delta: Any) -> float:
        return float(np.mean(np.where(delta > 0, p_a, np.where(delta < 0, 1 - p_a, 0.5))))

    def by_gold(delta: Any) -> float:
        return float(np.mean((1 + np.sign(delta) * np.sign(gold))[gold != 0] / 2))

    return {
        "expected_accuracy": float(np.mean([expected(delta) for delta in members])),
        "gold_accuracy": float(np.mean([by_gold(delta) for delta in members])),
        "ensemble_expected_accuracy": expected(members.mean(axis=0)),
        "ensemble_gold_accuracy": by_gold(members.mean(axis=0)),
        "best_possible": float(np.mean(np.maximum(p_a, 1 - p_a))),
        "delta_deviation": float(members.std()),
    }


def world(run: Run, config: BenchmarkConfig) -> dict[str, Artifact]:
    """Make what all seeds share: SFT policy, pool, held-out pairs."""
    recipe = config.recipe
    source = World(run, recipe)
    policy = train_sft_policy(run, recipe, source)
    artifacts = {"policy": policy}
    for name, count, share in (
        ("pool", config.pool_prompts, "preferences"),
        ("held_out", config.held_out_prompts, "heldout"),
    ):
        artifacts[name] = run.make(
            name,
            sample_pairs,
            config=recipe.pairs.model_copy(update={"prompts": count}),
            policy=policy,
            prompts=source.prompts(share, count),
            seed=recipe.seed,
        )
    return artifacts


def curve(
    run: Run, config: BenchmarkConfig, shared: Mapping[str, Artifact], strategy: str, seed: int
) -> list[dict[str, Any]]:
    """Select, label and train in rounds; return the figures after each."""
    recipe = config.recipe
    utility = defer(GoldUtility, data_seed=recipe.data_seed)
    labels, held_out_labels = (
        run.make(
            f"labels/{name}/{seed}",
            simulate_labels,
            config=recipe.labeling,
            pairs=shared[name],
            utility=utility,
            data_seed=seed,
        )
        for name in ("pool", "held_out")
    )
    chosen: list[Artifact] = []
    scorers: list[Any] = []
    points = []
    total = 0
    for budget in (*config.budgets, *(config.further if strategy == UNIFORM else ())):
        way = strategy if chosen else UNIFORM
        place = f"{strategy}/{budget}/{seed}"
        chosen.append(
            run.make(
                f"select/{place}",
                select_pairs,
                config=SelectionConfig.model_validate({"strategy": way, "count": budget - total}),
                pairs=shared["pool"],
                scorers=scorers if way != UNIFORM else [],
                labeled=list(chosen),
                seed=seed,
            )
        )
        total = budget
        preferences = run.make(
            f"reveal/{place}",
            reveal_labels,
            chosen=list(chosen),
            labels=labels,
            held_out=shared["held_out"],
            held_out_labels=held_out_labels,
            calibrated_on=config.calibrated_on,
        )
        scorers = [
            defer(
                RewardModelScorer,
                model=run.make(
                    f"reward/{place}/{member}",
                    train_reward_model,
                    config=reward_config(config, budget),
                    policy=shared["policy"],
                    preferences=preferences,
                    seed=1000 * seed + member,
                ),
            )
            for member in range(config.members)
        ]
        accuracy = run.make(
            f"accuracy/{place}",
            measure_accuracy,
            scorers=scorers,
            held_out=shared["held_out"],
            labels=held_out_labels,
            utility=utility,
        )
        points.append(
            {"strategy": strategy, "seed": seed}
            | {"labels": int(preferences.metrics["labels"] or 0)}
            | {"batch_clarity": preferences.metrics["batch_clarity"]}
            | accuracy.metrics
        )
    return points


def reward_config(config: BenchmarkConfig, labels: int) -> RewardConfig:
    """Return the recipe's settings of a reward model, trained long enough for so many labels."""
    steps = max(config.min_steps, math.ceil(config.epochs * labels / config.batch_size))
    reward = config.recipe.reward
    training = {"max_steps": steps, "batch_size": config.batch_size}
    return reward.model_copy(update={"training": reward.training.model_copy(update=training)})


def settings(arguments: argparse.Namespace) -> BenchmarkConfig:
    """Return the settings: the quickstart's, or tiny ones."""
    path = Path(RECIPE_FILE).parent / "configs" / "quickstart.yaml"
    recipe = load(DpoVsPpoConfig, path)
    chosen: dict[str, Any] = {"recipe": recipe, "seeds": tuple(range(arguments.seeds))}
    if arguments.quick:
        scratch = recipe.base.scratch
        assert scratch is not None
        short = {"training": scratch.training.model_copy(update={"max_steps": 60})}
        chosen |= {
            "recipe": recipe.model_copy(
                update={
                    "base": recipe.base.model_copy(
                        update={"scratch": scratch.model_copy(update=short)}
                    )
                }
            ),
            "pool_prompts": 60,
            "held_out_prompts": 30,
            "budgets": (16, 32, 48),
            "further": (64,),
            "members": 2,
            "epochs": 1.0,
            "min_steps": 5,
        }
    return BenchmarkConfig(**chosen)


def show(console: Console, points: Sequence[Mapping[str, Any]]) -> None:
    """Print mean accuracies as a table."""
    from rich.table import Table

    strategies = list(dict.fromkeys(point["strategy"] for point in points))
    table = Table("labels", *(f"{s}: {a}" for a in ACCURACIES for s in strategies))
    for budget in sorted({point["labels"] for point in points}):
        cells = []
        for accuracy in ACCURACIES:
            for strategy in strategies:
                values = [
                    point[accuracy]
                    for point in points
                    if point["strategy"] == strategy and point["labels"] == budget
                ]
                cells.append(
                    f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" if len(values) > 1
                    else f"{values[0]:.3f}" if values else ""
                )  # fmt: skip
        table.add_row(str(budget), *cells)
    console.print(table)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--home", type=Path, default=Path("runs"), help="where stages are kept")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (default 5)")
    parser.add_argument("--quick", action="store_true", help="tiny settings, for a look")
    arguments = parser.parse_args()

    config = settings(arguments)
    console = Console(stderr=True, soft_wrap=True)
    started = time.monotonic()
    name = "active_selection-quick" if arguments.quick else "active_selection"
    run = Run(arguments.home, name, "active_selection", config, Reporter(console))
    try:
        shared = world(run, config)
        points = [
            point
            for seed in config.seeds
            for strategy in config.strategies
            for point in curve(run, config, shared, strategy, seed)
        ]
        outcome: dict[str, Any] = {
            strategy: {accuracy: compare(points, strategy, accuracy) for accuracy in ACCURACIES}
            for strategy in config.strategies
            if strategy != UNIFORM
        }
        run.finish({})
    except BaseException as error:
        run.fail("failed", repr(error))
        raise
    show(console, points)
    result = {
        "benchmark": "active_selection",
        "quick": arguments.quick,
        "seeds": len(config.seeds),
        "pool": shared["pool"].metrics["pairs"],
        "held_out_pairs": shared["held_out"].metrics["pairs"],
        "best_possible": points[0]["best_possible"],
        "strategies": outcome,
        "points": points,
        "seconds_this_time": round(time.monotonic() - started, 1),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
