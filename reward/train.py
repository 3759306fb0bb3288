"""Training a reward model on preferences, with TRL's RewardTrainer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plumbline.data.records import Message, prompts_of, read_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.hooks import ScorerHook
from plumbline.lm.load import trainable_sequence_scorer
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import parameter_counts
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from plumbline.training.milestones import milestones
from plumbline.training.pairs import encode_pairs
from reward.config import RewardConfig
from reward.metrics import pairwise_accuracy
from reward.scorer import CALIBRATION, RewardModelScorer
from reward.soft_labels import PROBABILITY, SoftLabels, WithProbabilities, probabilities_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@stage("reward-model")
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

    from plumbline.training.exact_resume import ExactResume

    class Trainer(SoftLabels, ExactResume, trl.RewardTrainer):  # type: ignore[misc]
        """TRL's trainer, with soft labels and with checkpoints that resume exactly."""

    # 1. Both sides of each pair, tokenized as they will be scored.
    tokenizer = load_tokenizer(policy.path)
    dropped = Dropped()
    train = read_dataset(preferences.path, "train")
    test = read_dataset(preferences.path, "test")
    pairs = encode_pairs(train, tokenizer, config.max_length, dropped)
    stage.report_dropped(dropped)
    examples: list[dict[str, Any]] = [
        {"chosen_ids": pair.chosen, "rejected_ids": pair.rejected} for pair in pairs
    ]
    if config.soft_labels is not None:
        kept = [pair.row for pair in pairs]
        soft = probabilities_of(kept, config.soft_labels, preferences.id)
        examples = [{**example, PROBABILITY: p} for example, p in zip(examples, soft, strict=True)]

    # 2. The policy's weights under a new head.
    set_seed(seed)
    model = trainable_sequence_scorer(policy.path, config.tuning)
    counts = parameter_counts(model)

    # 3. Train.
    trainer = Trainer(
        model=model,
        args=trl.RewardConfig(
            **config.training.arguments(stage.scratch, seed),
            max_length=None,
            center_rewards_coefficient=config.center or None,
            gradient_checkpointing=config.training.activation_checkpointing,
        ),
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
    )
    trainer.data_collator = WithProbabilities(trainer.data_collator)
    judged = milestones(trainer.planned_steps(), config.evaluations) if hook else frozenset()
    current = _InTraining(trainer.model, tokenizer, config.max_length)

    def on_step(step: int) -> Mapping[str, float] | None:
        if hook is None or step not in judged:
            return None
        return hook.judge_scorer(current, step, stage.folder / "evaluations")

    trainer.run(stage, "reward model", on_step)
    card = model_card("Reward model", f"Trained on {len(pairs)} pairs of {preferences.id}.")
    save_model(trainer.model, tokenizer, stage.folder, source=policy.path, card=card)

    # 4. Calibrate on held-out pairs, scored from the saved files by the class that others use.
    scorer = RewardModelScorer(stage.folder)
    scores = {
        side: scorer.raw_scores(prompts_of(test), [row[side][-1]["content"] for row in test])
        for side in ("chosen", "rejected")
    }
    both = [*scores["chosen"], *scores["rejected"]]
    deviation = statistics.stdev(both)
    if deviation == 0:
        raise DataError("The reward model gives every held-out response the same score.")
    write_json(
        stage.folder / CALIBRATION,
        {
            "mean": statistics.mean(both),
            "deviation": deviation,
            "max_length": config.max_length,
        },
    )
    lines = [line for line in trainer.state.log_history if "loss" in line]
    return {
        "accuracy": pairwise_accuracy(scores["chosen"], scores["rejected"]),
        "train_accuracy": lines[-1]["accuracy"] if lines else None,
        "loss": lines[-1]["loss"] if lines else None,
        "pairs": float(len(pairs)),
        "held_out_pairs": float(len(test)),
        "dropped_rows": float(len(dropped.rows)),
        "tokens_seen": float(trainer._total_train_tokens),
        **counts,
    }


class _InTraining(RewardModelScorer):
    """The reward model as it stands, as a scorer; not calibrated yet."""

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, max_length: int, batch_size: int = 64
    ) -> None:
        self.tokenizer, self.batch_size, self.max_length = tokenizer, batch_size, max_length
        self.mean, self.deviation = 0.0, 1.0
        self.__dict__["model"] = model  # in place of the one that would be loaded

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the model's own output for each response; it trains on afterwards."""
        was_training = self.model.training
        self.model.eval()
        try:
            return super().score(prompts, responses)
        finally:
            self.model.train(was_training)
