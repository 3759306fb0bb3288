"""Best of n by one reward model and by ensembles, where a quarter of the labels is mistaken.

    plumbline run dpo_vs_ppo --config quickstart
    python benchmarks/reward_ensembles.py --home runs --run dpo_vs_ppo-quickstart

The setting of Coste et al. (2023) in the small: reward models learn from few of the run's
preferences, of which a share is flipped, and then choose among 64 responses of its SFT policy to
held-out prompts. Gold utility judges what they choose. For each seed the labels are drawn again; an
ensemble has members of different heads, adapters and data orders, and each is also a single model,
whose figures are means over the members. Intervals are 95 %, by Student's t over seeds.

About five minutes on one core for five seeds (an estimate, by a training of the quickstart).
Finished seeds are kept in a file beside the run, so a second call resumes where the first was cut
off. Progress goes to stderr; the last line is one JSON object: gold utility at the peak over n and
at the largest n.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

from benchmarks.finished_run import artifacts_of, measured, parser_of
from benchmarks.finished_seeds import FinishedSeeds, say
from benchmarks.intervals import interval
from benchmarks.stages import Folder, new_stage
from plumbline.data.records import Conversation, Row, read_dataset, write_dataset
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact
from plumbline.seeds import derive, rng
from plumbline.statistics.best_of_n import best_of
from plumbline.world.data import prompts
from plumbline.world.gold import GoldUtility
from reward.config import RewardConfig
from reward.ensemble import COMBINATIONS
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model

SIZES = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=200, help="labels to train on")
    parser.add_argument("--flipped", type=float, default=0.25, help="share of mistaken labels")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--weight", type=float, default=1.0, help="of the uncertainty")
    options = parser.parse_args()
    policy, preferences = artifacts_of(options, "sft", "preferences")

    # 1. Responses, and how good they truly are.
    say(f"{options.prompts * SIZES[-1]} responses to choose from")
    candidates = sample_candidates(policy, options.prompts)

    # 2. Reward models of each seed, and the gold utility of what they choose.
    finished = FinishedSeeds(
        options.home / f"reward_ensembles-{options.run}.jsonl",
        {"policy": policy.id, "preferences": preferences.id, **measured(options)},
        "reward.train",
    )
    curves: dict[str, list[list[float]]] = {}
    for result in finished.each(
        0, options.seeds, lambda seed: one_seed(policy, preferences, seed, options, candidates)
    ):
        for name, curve in result.items():
            curves.setdefault(name, []).append(curve)
    print(json.dumps(summary({name: np.array(curve) for name, curve in curves.items()})))


class Candidates(NamedTuple):
    """Responses to choose among, as many to each prompt as the largest n."""

    questions: list[Conversation]
    texts: list[str]
    gold: np.ndarray
    """[prompts, n] their gold utility."""


def sample_candidates(policy: Artifact, count: int) -> Candidates:
    """Sample responses to so many held-out prompts."""
    loaded = Policy.load(policy.path)
    questions = [p for p in prompts(0, count, "heldout") for _ in range(SIZES[-1])]
    seeds = [derive(2, "candidates", number) for number in range(len(questions))]
    ids = [loaded.encode(question) for question in questions]
    texts = [loaded.decode(g.ids) for g in loaded.sample(ids, seeds, SamplingConfig())]
    gold = np.array(GoldUtility(0).score(questions, texts)).reshape(-1, SIZES[-1])
    return Candidates(questions, texts, gold)


def one_seed(
    policy: Artifact,
    preferences: Artifact,
    seed: int,
    options: argparse.Namespace,
    candidates: Candidates,
) -> dict[str, list[float]]:
    """Train the members; return the curve over n of one model and of each ensemble."""
    gold = candidates.gold
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        data = noisy(preferences, place / "data", seed, options.pairs, options.flipped)
        members = []
        for number in range(options.members):
            say(f"seed {seed}, member {number + 1} of {options.members}")
            score = member(policy, data, place / str(number), 100 * seed + number)
            members.append(score(candidates.questions, candidates.texts))
    scores = np.array(members)
    singles = [best_of(s.reshape(gold.shape), gold, SIZES).judging for s in scores]
    curves: dict[str, list[float]] = {"single": np.mean(singles, axis=0).tolist()}
    for name, way in COMBINATIONS.items():
        combined = way.function(scores, options.weight).reshape(gold.shape)
        curves[name] = best_of(combined, gold, SIZES).judging.tolist()
    return curves


def noisy(preferences: Artifact, folder: Path, seed: int, count: int, flipped: float) -> Folder:
    """Write some of the preferences, a share of them the wrong way round."""
    draw = rng(seed, "mistaken labels")
    rows: list[Row] = draw.sample(read_dataset(preferences.path, "train"), count)
    turned = set(draw.sample(range(count), round(flipped * count)))
    rows = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} if n in turned else row
        for n, row in enumerate(rows)
    ]
    test = read_dataset(preferences.path, "test")[:60]
    splits = {"train": rows, "test": test}
    write_dataset(folder, splits, kind="preference", title="Mistaken labels", description="")
    return Folder(folder)


def member(policy: Artifact, data: Artifact, folder: Path, seed: int):  # type: ignore[no-untyped-def]
    """Train a reward model; return what scores by it."""
    stage = new_stage(folder)
    train_reward_model(stage, config=RewardConfig(), policy=policy, preferences=data, seed=seed)
    return RewardModelScorer(stage.folder).score


def summary(curves: dict[str, np.ndarray]) -> dict[str, object]:
    """Return mean gold utility with half the width of its interval, and differences to one model.

    Of curves [seeds, sizes] by name.
    """
    result: dict[str, object] = {
        "n": SIZES,
        "one response": round(float(curves["single"][:, 0].mean()), 3),
    }
    for name, curve in curves.items():
        values = {"peak": curve.max(axis=1), f"n={SIZES[-1]}": curve[:, -1]}
        single = curves["single"]
        others = {"peak": single.max(axis=1), f"n={SIZES[-1]}": single[:, -1]}
        result[name] = {key: interval(value) for key, value in values.items()}
        if name != "single":
            result[f"{name} less single"] = {
                key: interval(value - others[key]) for key, value in values.items()
            }
    return result


if __name__ == "__main__":
    main()
