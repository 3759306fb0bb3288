"""How accurate reward models become on the embedded world, here and with TRL, over seeds.

    plumbline run dpo_vs_ppo --config quickstart
    python benchmarks/reward_accuracy.py --home runs --run dpo_vs_ppo-quickstart

Both train a LoRA reward model from the run's SFT policy on its preferences, with the same seed, so
the same head, batches and steps. Accuracy is on the held-out pairs, whose votes are noisy: beside
it stands that of the best possible judge, who knows what every simulated labeller thinks. Time is
the processor's, of the training alone; ours includes its last checkpoint.

About eight minutes on one core for five seeds, of which TRL takes two thirds (an estimate, by a
training of the quickstart). Finished seeds are kept in a file beside the run, so a second call
resumes where the first was cut off. Progress goes to stderr; the last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Beside this file lie some with names of our packages, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
sys.path.insert(0, str(ROOT))

from benchmarks.finished_run import artifacts_of, parser_of
from benchmarks.finished_seeds import FinishedSeeds
from benchmarks.intervals import interval
from plumbline.data.records import read_dataset
from plumbline.dropped import Dropped
from plumbline.lm.load import trainable_sequence_scorer
from plumbline.lm.precision import compute_precision
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.encoded_rows import limit_of
from plumbline.training.pairs import EncodedPair, encode_pairs
from reward.config import RewardConfig
from reward.metrics import pairwise_accuracy
from reward.train import ScorerInTraining, make_trainer

KINDS = ("trl", "ours")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=RewardConfig().training.epochs)
    parser.add_argument("--only", choices=KINDS, help="one of both, in less time")
    options = parser.parse_args()
    policy, preferences = artifacts_of(options, "sft", "preferences")
    kinds = (options.only,) if options.only else KINDS
    best = preferences.metrics["best_possible"]
    assert best is not None, "the run's labels are not simulated, so nobody knows what is possible"
    finished = FinishedSeeds(
        options.home / f"reward_accuracy-{options.run}.jsonl",
        {
            "policy": policy.id,
            "preferences": preferences.id,
            "epochs": options.epochs,
            "kinds": list(kinds),
        },
        "reward.train",
    )
    results = finished.each(
        options.first_seed,
        options.seeds,
        lambda seed: one_seed(kinds, policy, preferences, seed, options.epochs),
    )
    accuracy = {kind: [result[f"accuracy_{kind}"] for result in results] for kind in kinds}
    seconds = {kind: sum(result[f"seconds_{kind}"] for result in results) for kind in kinds}
    below = {kind: [best - right for right in accuracy[kind]] for kind in kinds}
    both = {}
    if not options.only:
        differences = [a - b for a, b in zip(accuracy["ours"], accuracy["trl"], strict=True)]
        both = {
            "ours_less_trl": interval(differences),
            "time_ratio": round(seconds["trl"] / seconds["ours"], 2),
        }
    print(
        json.dumps(
            {
                "seeds": len(results),
                "best_possible": best,
                **{f"accuracy_{kind}": interval(accuracy[kind]) for kind in kinds},
                **{f"below_best_{kind}": interval(below[kind]) for kind in kinds},
                **both,
            }
        )
    )


def one_seed(
    kinds: Sequence[str], policy: Artifact, preferences: Artifact, seed: int, epochs: float
) -> dict[str, float]:
    """Return accuracy and seconds of each training."""
    result = {}
    for kind in kinds:
        right, spent = train(kind, policy, preferences, seed, epochs)
        result |= {f"accuracy_{kind}": right, f"seconds_{kind}": spent}
    return result


@compute_precision("model", "cpu")
def train(
    kind: str, policy: Artifact, preferences: Artifact, seed: int, epochs: float
) -> tuple[float, float]:
    """Return accuracy on the held-out pairs, and seconds of the training."""
    from transformers import set_seed

    config, tokenizer = RewardConfig(), load_tokenizer(policy.path)
    training = config.training.model_copy(update={"checkpoint_every": 100_000, "epochs": epochs})
    config = config.model_copy(update={"training": training})
    limit = limit_of(policy.path, config.max_length)
    rows = read_dataset(preferences.path, "train")
    pairs = encode_pairs(rows, tokenizer, limit, Dropped())
    with tempfile.TemporaryDirectory() as scratch:
        stage = Stage(Path(scratch) / "stage", Reporter(quiet=True))
        set_seed(seed)
        model = trainable_sequence_scorer(policy.path, config.tuning)
        trainer: Any
        run: Callable[[], object]
        if kind == "ours":
            trainer = make_trainer(stage, model, tokenizer, pairs, config, preferences.id, seed)
            run = partial(trainer.run, stage, "reward model")
        else:
            trainer = trl_trainer(stage, model, tokenizer, pairs, config, seed)
            run = trainer.train
        start = time.process_time()
        run()
        spent = time.process_time() - start
    test = read_dataset(preferences.path, "test")
    scorer = ScorerInTraining(trainer.model, tokenizer, limit.tokens)
    chosen, rejected = (
        scorer.raw_scores([row["prompt"] for row in test], [row[s][-1]["content"] for row in test])
        for s in ("chosen", "rejected")
    )
    return pairwise_accuracy(chosen, rejected), spent


def trl_trainer(
    stage: Stage,
    model: Any,
    tokenizer: Any,
    pairs: list[EncodedPair],
    config: RewardConfig,
    seed: int,
) -> Any:
    """Return TRL's trainer on the same pairs."""
    import trl
    from datasets import Dataset

    rows = [
        {
            "chosen_ids": pair.prompt_ids + pair.chosen_ids,
            "rejected_ids": pair.prompt_ids + pair.rejected_ids,
        }
        for pair in pairs
    ]
    arguments = config.training.trl_arguments(stage.scratch, seed) | {"save_strategy": "no"}
    return trl.RewardTrainer(
        model=model,
        args=trl.RewardConfig(**arguments, center_rewards_coefficient=config.center_rewards),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


if __name__ == "__main__":
    main()
