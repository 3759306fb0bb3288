"""Best of 16 on the embedded world's sums: by process reward, by outcome reward, by majority.

    plumbline run dpo_vs_ppo --config quickstart
    python benchmarks/process_reward.py --home runs --run dpo_vs_ppo-quickstart

The run's SFT policy responds to prompts that ask for a sum, and its steps are labelled by roll-outs
(no people, no gold beyond whether the answer is right). For each seed a process reward model learns
from these labels, and an outcome reward model from the same responses: a right one over a wrong
one to the same prompt. Both then choose among 16 responses to each held-out prompt; the majority
takes the answer that most of them give. The figure is the share of right answers, with the
standard error over seeds.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

from plumbline.data.records import Conversation, Row, assistant, prompt_id, read_dataset
from plumbline.data.records import write_dataset as write
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact
from plumbline.runs.find import find_artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.seeds import derive
from plumbline.training.config import TrainingConfig
from plumbline.world.checks import RightAnswer
from plumbline.world.data import prompts
from plumbline.world.requests import read
from reward.config import RewardConfig
from reward.process.config import ProcessConfig, RolloutLabelsConfig
from reward.process.rollouts import label_steps
from reward.process.scorer import ProcessScorer
from reward.process.train import train_process_reward
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model

_ANSWER = re.compile(r"Answer: \$(\d+)")
TRAINING = TrainingConfig(learning_rate=1e-3, epochs=3, batch_size=16, checkpoint_every=100_000)


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--home", type=Path, default=Path("runs"), help="the home of the run")
    parser.add_argument("--run", default="dpo_vs_ppo-quickstart", help="its name")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train-prompts", type=int, default=150)
    parser.add_argument("--held-out-prompts", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=1.0)
    options = parser.parse_args()
    policy = find_artifact(options.home, f"{options.run}:sft")
    assert policy is not None, "the run has no such stage"
    checker, sampling = RightAnswer(0), SamplingConfig(temperature=options.temperature)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        steps = new_stage(place / "steps")
        labels = label_steps(
            steps,
            config=RolloutLabelsConfig(responses=6, rollouts=6, sampling=sampling),
            policy=policy,
            prompts=sums("preferences", options.train_prompts),
            checker=checker,
            data_seed=0,
        )
        pairs = outcome_pairs(Folder(steps.folder), place / "pairs")
        print(json.dumps({"labels": labels, "outcome_pairs": pairs}), flush=True)
        chosen = Candidates(policy, sums("heldout", options.held_out_prompts), sampling, checker)
        results: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            for name, right in one_seed(policy, place, seed, chosen).items():
                results.setdefault(name, []).append(right)
            print(
                f"seed {seed}: { ({n: round(v[-1], 3) for n, v in results.items()}) }", flush=True
            )
    summary = {"one response": chosen.mean, "any of 16": chosen.any, "majority": chosen.majority}
    for name, shares in results.items():
        summary[name] = statistics.mean(shares)
        summary[f"{name}, standard error"] = statistics.stdev(shares) / len(shares) ** 0.5
    print(json.dumps({name: round(value, 4) for name, value in summary.items()}))


def sums(share: str, count: int) -> list[Conversation]:
    """Return different prompts of a share that ask for a sum."""
    sum_prompts = [p for p in prompts(0, 8 * count, share) if (r := read(p)) and r.kind == "sum"]
    return list({prompt_id(p): p for p in sum_prompts}.values())[:count]


def new_stage(folder: Path) -> Stage:
    """Return a stage to work in, silent."""
    return Stage(folder, Reporter(quiet=True))


def outcome_pairs(steps: Artifact, folder: Path) -> int:
    """Write pairs of a right and a wrong response to the same prompt; return how many."""
    splits: dict[str, list[Row]] = {}
    for split in ("train", "test"):
        by_prompt: dict[str, tuple[list[Row], list[Row]]] = {}
        for row in read_dataset(steps.path, split):
            sides = by_prompt.setdefault(prompt_id(row["prompt"]), ([], []))
            sides[row["labels"][-1] > 0.5].append(row)
        splits[split] = [
            {
                "prompt": good["prompt"],
                "chosen": [assistant("".join(good["completions"]))],
                "rejected": [assistant("".join(bad["completions"]))],
            }
            for wrong, right in by_prompt.values()
            for good in right
            for bad in wrong
        ]
    write(folder, splits, kind="preference", title="Outcomes", description="")
    return len(splits["train"])


class Candidates:
    """Sixteen responses to each prompt, and which of them are right."""

    def __init__(
        self,
        policy: Artifact,
        questions: Sequence[Conversation],
        sampling: SamplingConfig,
        checker: RightAnswer,
    ) -> None:
        loaded = Policy.load(policy.path)
        self.prompts = [prompt for prompt in questions for _ in range(16)]
        seeds = [derive(1, "candidates", number) for number in range(len(self.prompts))]
        ids = [loaded.encode(prompt) for prompt in self.prompts]
        self.texts = [loaded.decode(g.ids) for g in loaded.sample(ids, seeds, sampling)]
        self.right = checker.score(self.prompts, self.texts)

    @property
    def mean(self) -> float:
        """Share of right responses."""
        return statistics.mean(self.right)

    @property
    def any(self) -> float:
        """Share of prompts with a right response."""
        return statistics.mean(max(self.right[n : n + 16]) for n in range(0, len(self.right), 16))

    @property
    def majority(self) -> float:
        """Share of prompts whose most frequent answer is right."""
        right = []
        for start in range(0, len(self.texts), 16):
            group = range(start, start + 16)
            answers = {n: m[1] for n in group if (m := _ANSWER.search(self.texts[n]))}
            most = Counter(answers.values()).most_common(1)
            of_it = [self.right[n] for n in answers if most and answers[n] == most[0][0]]
            right.append(statistics.mean(of_it) if of_it else 0.0)
        return statistics.mean(right)

    def best(self, score: Callable[[Sequence[Conversation], Sequence[str]], list[float]]) -> float:
        """Return the share of prompts whose best response by a score is right."""
        scores = score(self.prompts, self.texts)
        return statistics.mean(
            self.right[max(range(n, n + 16), key=lambda k: scores[k])]
            for n in range(0, len(scores), 16)
        )


def one_seed(policy: Artifact, place: Path, seed: int, candidates: Candidates) -> dict[str, float]:
    """Train both models; return the share of right answers that each way of choosing finds."""
    process = new_stage(place / f"process-{seed}")
    metrics: dict[str, Any] = dict(
        train_process_reward(
            process,
            config=ProcessConfig(training=TRAINING),
            policy=policy,
            steps=Folder(place / "steps" / "out"),
            split="sentences",
            seed=seed,
        )
    )
    outcome = new_stage(place / f"outcome-{seed}")
    train_reward_model(
        outcome,
        config=RewardConfig(training=TRAINING),
        policy=policy,
        preferences=Folder(place / "pairs"),
        seed=seed,
    )
    return {
        "step accuracy": metrics["step_accuracy"],
        "steps, most frequent label": metrics["majority_accuracy"],
        "outcome": candidates.best(RewardModelScorer(outcome.folder).score),
        **{
            f"process, {how}": candidates.best(ProcessScorer(process.folder, how).score)
            for how in ("product", "minimum", "last")
        },
    }


if __name__ == "__main__":
    main()
