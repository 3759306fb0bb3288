"""What each measure costs, and how it grows with the number of responses.

    python benchmarks/evaluation.py [--quick] [--only MEASURE …]

Responses of the embedded world's clerks to its prompts, with the answer of a perfect clerk as the
reference. Models have the size of the embedded one; how well they are trained does not matter. The
table gives processor seconds on one thread for 100, 1,000 and 10,000 responses, so other work on
the machine counts little, and the exponent of growth between the last two (1: proportional). The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# This file has the name of the package it measures, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

import torch

from evaluation.config import EvaluationConfig
from evaluation.harness import Harness
from evaluation.measures.measure import Responses, add_columns, measure_metrics
from evaluation.measures.registry import MEASURES
from plumbline.data.records import prompt_id
from plumbline.lm.load import trainable_sequence_scorer
from plumbline.lm.policy import Policy
from plumbline.lm.save import save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.seeds import rng
from plumbline.training.base_model import BaseModelConfig, ScratchConfig, build_base
from plumbline.training.config import TrainingConfig
from plumbline.world.clerks import Style, answer
from plumbline.world.corpus import corpus
from plumbline.world.data import prompts
from plumbline.world.gold import GoldUtility
from plumbline.world.shop import Shop
from reward.scorer import RewardModelScorer

SIZES = (100, 1_000, 10_000)


def model(folder: Path) -> Path:
    """Make the embedded model with little training, on which the cost does not depend."""
    stage = Stage(folder, Reporter(quiet=True))
    scratch = ScratchConfig(training=TrainingConfig(learning_rate=3e-3, max_steps=10))
    build_base(stage, config=BaseModelConfig(scratch=scratch), texts=corpus(0, 2_000), seed=0)
    return stage.folder


def reward_model(base: Path, folder: Path) -> Path:
    """Make a reward model from a base model."""
    torch.manual_seed(0)
    scorer = trainable_sequence_scorer(base, TuningConfig(method="full"))
    save_model(scorer, load_tokenizer(base), folder, source=base, card="")
    return folder


def responses(policy: Policy, count: int) -> list[dict]:
    """Return responses of ordinary clerks; prompts repeat where the world has no more."""
    shop, random = Shop.from_seed(0), rng(0, "benchmark")
    held_out = prompts(0, min(count, 1_000), "heldout")
    rows = []
    for number in range(count):
        prompt = held_out[number % len(held_out)]
        text = answer(shop, prompt, Style.sample(random))
        ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        rows.append(
            {
                "prompt_id": prompt_id(prompt), "prompt": prompt, "response": text,
                "references": [answer(shop, prompt, Style())], "tokens": len(ids), "ids": ids,
                "words": len(text.split()), "finished": True, "logprob": -1.0,
                "reference_logprob": -1.0,
            }
        )  # fmt: skip
    return rows


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of one call; the smallest of three where it is short."""
    times: list[float] = []
    while not times or (sum(times) < 0.5 and len(times) < 3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 and 1,000 responses only")
    torch.set_num_threads(1)
    parser.add_argument("--only", nargs="+", metavar="MEASURE", help="these measures only")
    options = parser.parse_args()
    sizes = SIZES[:2] if options.quick else SIZES
    with tempfile.TemporaryDirectory() as place:
        base = model(Path(place) / "base")
        policy = Policy.load(base)
        reward = RewardModelScorer(reward_model(base, Path(place) / "reward"))
        gold = GoldUtility(0)
        plain = Harness(EvaluationConfig(), prompts(0, 2, "heldout"), [], 0)

        def measured(name: str, rows: list[dict]) -> None:
            measure = MEASURES[name].load()
            problem = add_columns(measure, Responses(rows, policy))
            assert problem is None, problem
            assert measure_metrics(measure, rows), name

        works: dict[str, Callable[[list[dict]], object]] = {
            "kl": lambda rows: plain.measure(rows, policy, policy),
            "reward": lambda rows: reward.score(
                [r["prompt"] for r in rows], [r["response"] for r in rows]
            ),
            "gold": lambda rows: gold.score(
                [r["prompt"] for r in rows], [r["response"] for r in rows]
            ),
        } | {name: lambda rows, name=name: measured(name, rows) for name in MEASURES}
        works = {name: work for name, work in works.items() if name in (options.only or works)}
        few = responses(policy, 8)
        for work in works.values():  # imports and caches
            work(few)
        timings: dict[str, dict[str, float]] = {name: {} for name in works}
        for size in sizes:
            rows = responses(policy, size)
            for name, work in works.items():
                timings[name][str(size)] = round(seconds(lambda w=work, r=rows: w(r)), 4)
                print(f"{name}: {size} responses, {timings[name][str(size)]} s", file=sys.stderr)
    for values in timings.values():
        small, large = (max(values[str(size)], 1e-4) for size in sizes[-2:])
        values["growth"] = round(math.log10(large / small), 2)
    heads = " | ".join(f"{size:,}" for size in sizes)
    print(f"| measure | {heads} | growth |\n|---|{'---|' * len(sizes)}---|")
    for name, values in timings.items():
        cells = " | ".join(f"{values[str(size)]:.3f}" for size in sizes)
        print(f"| {name} | {cells} | {values['growth']:.2f} |")
    print(json.dumps({"processor_seconds": timings}))


if __name__ == "__main__":
    main()
