"""Best of 16 on the embedded world's sums: by process reward, by outcome reward, by majority.

    plumbline run dpo_vs_ppo --config quickstart
    python benchmarks/process_reward.py --home runs --run dpo_vs_ppo-quickstart

The run's SFT policy responds to prompts that ask for a sum, and its steps are labelled by roll-outs
(no people, no gold beyond whether the answer is right). For each seed process reward models learn
from these labels, as probabilities and as hard labels, and an outcome reward model from the same
responses: a right one over a wrong one to the same prompt. Each then chooses among 16 responses to
each held-out prompt; the majority takes the answer that most of them give. The figure is the share
of right answers, with its 95 % interval over seeds.

Five seeds took 28 minutes on one of two cores that did other work as well, of which labelling takes
half a minute. Labels and finished seeds are kept beside the run, so a second call resumes where the
first was cut off. Progress goes to stderr; the last line is one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

from rich.console import Console

from benchmarks.finished_run import artifacts_of, parser_of
from benchmarks.finished_seeds import FinishedSeeds, say
from benchmarks.intervals import interval
from benchmarks.stages import Folder, new_stage
from plumbline.data.records import Conversation, Row, assistant, prompt_id, read_dataset
from plumbline.data.records import write_dataset as write
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact, read_json, write_json
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
from reward.process.steps import STEP_COMBINATIONS
from reward.process.train import train_process_reward
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model

_ANSWER = re.compile(r"Answer: \$(\d+)")
TRAINING = TrainingConfig(learning_rate=1e-3, epochs=3, batch_size=16, checkpoint_every=100_000)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--train-prompts", type=int, default=150)
    parser.add_argument("--held-out-prompts", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=1.0)
    options = parser.parse_args()
    (policy,) = artifacts_of(options, "sft")
    checker, sampling = RightAnswer(0), SamplingConfig(temperature=options.temperature)
    kept = options.home / f"process_reward-{options.run}"
    settings = {
        "policy": policy.id,
        "train_prompts": options.train_prompts,
        "held_out_prompts": options.held_out_prompts,
        "temperature": options.temperature,
    }
    labels = Path(f"{kept}-{hash_of(settings)}")
    facts = label(policy, labels, options.train_prompts, sampling, checker)
    say(f"labels: {facts}")
    chosen = Candidates(policy, sums("heldout", options.held_out_prompts), sampling, checker)
    finished = FinishedSeeds(
        Path(f"{kept}.jsonl"), settings | {"labels": ["soft", "hard"]}, "reward.process.train"
    )
    results = finished.each(0, options.seeds, lambda seed: one_seed(policy, labels, seed, chosen))
    print(
        json.dumps(
            {
                "seeds": len(results),
                "labels": facts,
                "one response": round(chosen.mean, 4),
                "any of 16": round(chosen.any, 4),
                "majority": round(chosen.majority, 4),
                **{name: interval([result[name] for result in results]) for name in results[0]},
                **{
                    f"{name} less outcome": interval([r[name] - r["outcome"] for r in results])
                    for name in results[0]
                    if name.startswith("process") and name.rsplit(", ")[-1] in STEP_COMBINATIONS
                },
            }
        )
    )


def hash_of(settings: Mapping[str, Any]) -> str:
    """Return a short name of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def label(
    policy: Artifact, place: Path, count: int, sampling: SamplingConfig, checker: RightAnswer
) -> dict[str, Any]:
    """Label steps by roll-outs, and make pairs of outcomes; what is there already is taken."""
    done = place / "labels.json"
    if not done.exists():
        steps = Stage(place / "steps", Reporter(Console(stderr=True)))
        facts = label_steps(
            steps,
            config=RolloutLabelsConfig(responses=6, rollouts=6, sampling=sampling),
            policy=policy,
            prompts=sums("preferences", count),
            checker=checker,
            data_seed=0,
        )
        pairs = outcome_pairs(Folder(steps.folder), place / "pairs")
        write_json(done, {**facts, "outcome_pairs": pairs})
    facts: dict[str, Any] = read_json(done)
    return facts


def sums(share: str, count: int) -> list[Conversation]:
    """Return different prompts of a share that ask for a sum."""
    sum_prompts = [p for p in prompts(0, 8 * count, share) if (r := read(p)) and r.kind == "sum"]
    return list({prompt_id(p): p for p in sum_prompts}.values())[:count]


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

    def best(self, scores: Sequence[float]) -> float:
        """Return the share of prompts whose best response by these scores is right."""
        return statistics.mean(
            self.right[max(range(n, n + 16), key=lambda k: scores[k])]
            for n in range(0, len(scores), 16)
        )


def one_seed(policy: Artifact, labels: Path, seed: int, candidates: Candidates) -> dict[str, float]:
    """Train both models; return the share of right answers that each way of choosing finds."""
    with tempfile.TemporaryDirectory() as scratch:
        return trained_and_judged(policy, labels, seed, candidates, Path(scratch))


def trained_and_judged(
    policy: Artifact, labels: Path, seed: int, candidates: Candidates, place: Path
) -> dict[str, float]:
    """Do the same with a folder for both models."""
    shares: dict[str, float] = {}
    for name, hard in (("process", False), ("process, hard labels", True)):
        say(f"seed {seed}, {name}")
        process = new_stage(place / name)
        metrics: dict[str, Any] = dict(
            train_process_reward(
                process,
                config=ProcessConfig(training=TRAINING, hard_labels=hard),
                policy=policy,
                steps=Folder(labels / "steps" / "out"),
                split="sentences",
                seed=seed,
            )
        )
        steps = ProcessScorer(process.folder).step_scores(candidates.prompts, candidates.texts)
        shares |= {
            f"{name}, step accuracy": metrics["step_accuracy"],
            f"{name}, most frequent label": metrics["majority_accuracy"],
            **{
                f"{name}, {how}": candidates.best([way.function(row or [0.0]) for row in steps])
                for how, way in STEP_COMBINATIONS.items()
            },
        }
    say(f"seed {seed}, outcome reward")
    outcome = new_stage(place / "outcome")
    train_reward_model(
        outcome,
        config=RewardConfig(training=TRAINING),
        policy=policy,
        preferences=Folder(labels / "pairs"),
        seed=seed,
    )
    chosen = RewardModelScorer(outcome.folder).score(candidates.prompts, candidates.texts)
    return shares | {"outcome": candidates.best(chosen)}


if __name__ == "__main__":
    main()
