"""PPO against one reward model and against ensembles, where a quarter of the labels is mistaken.

    plumbline run dpo_vs_ppo --config quickstart
    python benchmarks/ppo_ensembles.py --home runs --run dpo_vs_ppo-quickstart

The setting of benchmarks/reward_ensembles.py (Coste et al., 2023, in the small), where PPO takes
the place of best of n. For each seed the labels are drawn and the members trained again; PPO
without a KL penalty then trains one policy against the first member alone, and one against each
ensemble of all members, from the same start with the same random streams. Gold utility of responses
to held-out prompts is measured on the way. The peak is the highest of these means on a curve, for
each curve alike. Intervals are 95 %, by Student's t over seeds.

Five seeds took 43 minutes on one of two cores that did other work as well. Finished seeds are kept
in a file beside the run, so a second call resumes where the first was cut off. Progress goes to
stderr; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

from benchmarks.finished_run import artifacts_of, measured, parser_of
from benchmarks.finished_seeds import FinishedSeeds, say
from benchmarks.intervals import interval
from benchmarks.reward_ensembles import noisy
from benchmarks.stages import new_stage
from plumbline.data.records import Conversation
from plumbline.hooks import Scorer
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.seeds import derive
from plumbline.world.data import prompts
from plumbline.world.gold import GoldUtility
from reward.config import RewardConfig
from reward.ensemble import EnsembleScorer
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model
from rl.config import KLConfig, PPOConfig
from rl.ppo import train_ppo


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--ensembles", nargs="*", default=["minimum", "uncertainty"])
    parser.add_argument("--pairs", type=int, default=200, help="labels to train on")
    parser.add_argument("--flipped", type=float, default=0.25, help="share of mistaken labels")
    parser.add_argument("--weight", type=float, default=1.0, help="of the uncertainty")
    parser.add_argument("--rounds", type=int, default=20, help="of PPO, 32 responses each")
    parser.add_argument("--learning-rate", type=float, default=1.2e-3, help="of PPO")
    parser.add_argument("--prompts", type=int, default=60, help="held-out ones")
    options = parser.parse_args()
    policy, preferences = artifacts_of(options, "sft", "preferences")
    finished = FinishedSeeds(
        options.home / f"ppo_ensembles-{options.run}.jsonl",
        {"policy": policy.id, "preferences": preferences.id, **measured(options)},
        "rl.ppo",
    )
    curves: dict[str, list[list[float]]] = {}
    for result in finished.each(
        0, options.seeds, lambda seed: one_seed(policy, preferences, seed, options)
    ):
        for name, curve in result.items():
            curves.setdefault(name, []).append(curve)
    print(json.dumps(summary({name: np.array(curve) for name, curve in curves.items()})))


def one_seed(
    policy: Artifact, preferences: Artifact, seed: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Train the members and the policies; return each policy's gold and KL on the way."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        data = noisy(preferences, place / "data", seed, options.pairs, options.flipped)
        members = []
        for number in range(options.members):
            stage = new_stage(place / f"member-{number}")
            train_reward_model(
                stage, config=RewardConfig(), policy=policy, preferences=data,
                seed=100 * seed + number,
            )  # fmt: skip
            members.append(stage.folder)
        say(f"seed {seed}: {len(members)} reward models are trained")
        scorers: dict[str, Scorer] = {"single": RewardModelScorer(members[0])}
        for how in options.ensembles:
            scorers[how] = EnsembleScorer(members, how, options.weight)
        curves = {}
        for name, scorer in scorers.items():
            gold, kl = optimized(policy, scorer, place / name, seed, options)
            curves |= {name: gold, f"kl {name}": kl}
        return curves


def optimized(
    policy: Artifact, scorer: Scorer, folder: Path, seed: int, options: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Train a policy by PPO; return gold utility and KL at its evaluations, the start first."""
    stage = new_stage(folder)
    train_ppo(
        stage,
        config=PPOConfig(
            sampling=SamplingConfig(),
            kl=KLConfig(coefficient=0.0),
            iterations=options.rounds,
            batch_size=32,
            minibatch_size=16,
            ppo_epochs=2,
            learning_rate=options.learning_rate,
            schedule="constant",
            evaluations=options.rounds // 2,
            keep_checkpoints=False,
            checkpoint_every=options.rounds,
        ),
        policy=policy,
        prompts=prompts(0, 400, "preferences"),
        scorer=scorer,
        hook=GoldOfPolicy(prompts(0, options.prompts, "heldout")),
        seed=seed,
    )
    lines = read_metrics(stage.folder / "metrics.jsonl")
    gold, kl = (
        {int(li["step"]): li[name] for li in lines if name in li} for name in ("gold", "kl")
    )
    return list(gold.values()), [kl.get(step, 0.0) for step in gold]


class GoldOfPolicy:
    """The mean gold utility of one response to each prompt, from the same random streams."""

    def __init__(self, questions: Sequence[Conversation]) -> None:
        self._questions, self._gold = list(questions), GoldUtility(0)

    def __call__(
        self, policy: Policy, reference: Policy, step: int, folder: Path
    ) -> Mapping[str, float]:
        """Return the figure."""
        seeds = [derive(3, "gold of policy", number) for number in range(len(self._questions))]
        ids = [policy.encode(question) for question in self._questions]
        texts = [policy.decode(g.ids) for g in policy.sample(ids, seeds, SamplingConfig())]
        scores = self._gold.score(self._questions, texts)
        return {"gold": sum(scores) / len(scores)}


def summary(curves: dict[str, np.ndarray]) -> dict[str, object]:
    """Return mean gold utility with half the width of its interval, and differences to one model.

    Of curves [seeds, evaluations] by name.
    """
    gold = {name: curve for name, curve in curves.items() if not name.startswith("kl ")}
    utilities = {
        name: {"peak": curve.max(axis=1), "end": curve[:, -1]} for name, curve in gold.items()
    }
    result: dict[str, object] = {"start": round(float(gold["single"][:, 0].mean()), 3)}
    for name, values in utilities.items():
        result[name] = {key: interval(value) for key, value in values.items()} | {
            "kl at the end": interval(curves[f"kl {name}"][:, -1])
        }
        if name != "single":
            result[f"{name} less single"] = {
                key: interval(value - utilities["single"][key]) for key, value in values.items()
            }
    return result


if __name__ == "__main__":
    main()
