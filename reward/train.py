"""Training a reward model on preferences, on TRL's RewardTrainer and the shared skeleton."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plumbline.data.records import Message, Row, prompts_of, read_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.hooks import ScorerHook
from plumbline.lm.context import length_limit
from plumbline.lm.load import load_config, trainable_sequence_scorer
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.fit import Evaluate, fit
from plumbline.training.pairs import EncodedPair, encode_pairs
from reward.calibration import Calibration
from reward.config import RewardConfig
from reward.metrics import pairwise_accuracy
from reward.scorer import RewardModelScorer
from reward.soft_labels import PROBABILITY, probabilities_of
from reward.text_scorer import TextScorer, classifier_outputs

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@stage("reward-model", trains_in="several processes")
def train_reward_model(
    stage: Stage,
    *,
    config: RewardConfig,
    policy: Artifact,
    preferences: Artifact,
    seed: int,
    hook: ScorerHook | None = None,
) -> Mapping[str, float | None]:
    """Train a reward model that starts from a policy's weights; ``hook`` judges it on the way."""
    silence_libraries()
    import trl
    from datasets import Dataset
    from transformers import set_seed

    from reward.trainer import RewardTrainer

    # 1. Both responses of each pair, as ids, as they will be scored.
    tokenizer = load_tokenizer(policy.path)
    dropped = Dropped()
    train = read_dataset(preferences.path, "train")
    test = read_dataset(preferences.path, "test")
    limit = length_limit(config.max_length, load_config(policy.path))
    pairs = encode_pairs(train, tokenizer, limit, dropped)
    stage.report_dropped(dropped)

    # 2. The policy's weights under a new head.
    set_seed(seed)
    trainer = RewardTrainer(
        model=trainable_sequence_scorer(policy.path, config.tuning),
        args=trl.RewardConfig(
            **config.training.trl_arguments(stage.scratch, seed),
            center_rewards_coefficient=config.center_rewards or None,
        ),
        train_dataset=Dataset.from_list(_examples(pairs, config.soft_labels, preferences.id)),
        processing_class=tokenizer,
    )

    # 3. Train, with the harness at its milestones.
    evaluate = _evaluator(stage, hook, trainer.model, tokenizer, limit.tokens)
    fitted = fit(trainer, stage, "reward model", config.evaluations, evaluate)
    if not stage.writes:
        return {}  # the first process saves and calibrates
    card = model_card("Reward model", f"Trained on {len(pairs)} pairs of {preferences.id}.")
    save_model(trainer.model, tokenizer, stage.folder, source=policy.path, card=card)

    # 4. Calibrate on held-out pairs, scored from the saved files by the class that others use.
    scorer = RewardModelScorer(stage.folder)
    chosen, rejected = (scorer.raw_scores(*_responses(test, s)) for s in ("chosen", "rejected"))
    calibrated([*chosen, *rejected], limit.tokens).write(stage.folder)
    return {
        "accuracy": pairwise_accuracy(chosen, rejected),
        "train_accuracy": fitted.last.get("accuracy"),
        "loss": fitted.last.get("loss"),
        "pairs": float(len(pairs)),
        "held_out_pairs": float(len(test)),
        "dropped_rows": float(len(dropped.rows)),
        **fitted.metrics,
    }


def _evaluator(
    stage: Stage,
    hook: ScorerHook | None,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Evaluate | None:
    """Return what evaluates the reward model in training."""
    if hook is None:
        return None
    current, folder = ScorerInTraining(model, tokenizer, max_length), stage.folder / "evaluations"
    return lambda step: hook.judge_scorer(current, step, folder)


def calibrated(scores: Sequence[float], max_length: int) -> Calibration:
    """Return the scale on which scores have mean 0 and standard deviation 1."""
    std = statistics.stdev(scores)
    if std == 0:
        raise DataError(
            "The reward model gives every held-out response the same score, so there is no scale "
            "to put it on. Train it for longer, or at a higher learning rate."
        )
    return Calibration(statistics.mean(scores), std, max_length)


def _examples(
    pairs: Sequence[EncodedPair], soft_labels: str | None, origin: str
) -> list[dict[str, Any]]:
    """Return the rows that the trainer reads; each response stands behind its prompt."""
    examples: list[dict[str, Any]] = [
        {
            "chosen_ids": pair.prompt_ids + pair.chosen_ids,
            "rejected_ids": pair.prompt_ids + pair.rejected_ids,
        }
        for pair in pairs
    ]
    if soft_labels is not None:
        probabilities = probabilities_of([pair.row for pair in pairs], soft_labels, origin)
        for example, probability in zip(examples, probabilities, strict=True):
            example[PROBABILITY] = probability
    return examples


def _responses(rows: Sequence[Row], side: str) -> tuple[list[list[Message]], list[str]]:
    return prompts_of(rows), [row[side][-1]["content"] for row in rows]


class ScorerInTraining(TextScorer):
    """The reward model as it stands; not calibrated yet."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        super().__init__(tokenizer, Calibration(max_length=max_length))
        self._model = model

    def outputs(self, ids: Tensor, attention_mask: Tensor) -> list[float]:
        """Return the model's own output for each row [B, T]; it trains on afterwards."""
        was_training = self._model.training
        self._model.eval()
        try:
            return classifier_outputs(self._model, ids, attention_mask)
        finally:
            self._model.train(was_training)
