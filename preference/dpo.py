"""Direct preference optimisation, on TRL's DPOTrainer and the shared skeleton."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.data.records import read_dataset
from plumbline.dropped import Dropped
from plumbline.hooks import EvaluationHook
from plumbline.lm.context import length_limit
from plumbline.lm.load import load_config, trainable_causal_lm
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.fit import Evaluate, fit
from plumbline.training.pairs import encode_pairs
from preference.config import DPOConfig
from preference.losses import LOSSES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REFERENCE_ADAPTER = "ref"  # TRL's name for the frozen copy of the adapter


@stage("policy")
def train_dpo(
    stage: Stage,
    *,
    config: DPOConfig,
    policy: Artifact,
    preferences: Artifact,
    hook: EvaluationHook,
    seed: int,
) -> Mapping[str, float | None]:
    """Train a policy on preferences directly; its own start is the reference."""
    silence_libraries()
    import trl
    from datasets import Dataset
    from transformers import set_seed

    from preference.trainer import PreferenceTrainer

    # 1. Preferences that fit, as ids.
    tokenizer = load_tokenizer(policy.path)
    dropped = Dropped()
    limit = length_limit(config.max_length, load_config(policy.path))
    pairs = encode_pairs(read_dataset(preferences.path, "train"), tokenizer, limit, dropped)
    stage.report_dropped(dropped)

    # 2. The policy. Its reference's log-probabilities are computed once, before it moves.
    set_seed(seed)
    trainer = PreferenceTrainer(
        model=trainable_causal_lm(policy.path, config.tuning),
        loss=LOSSES[config.loss].function,
        args=trl.DPOConfig(
            **config.training.trl_arguments(stage.scratch, seed),
            beta=config.beta,
            label_smoothing=config.label_smoothing,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=4 * config.training.batch_size,
        ),
        train_dataset=Dataset.from_list([pair.ids for pair in pairs]),
        processing_class=tokenizer,
    )

    # 3. Train, evaluated on the way as it will be afterwards.
    def save(folder: Path, step: int) -> None:
        card = model_card(
            "Policy aligned by direct preference optimisation", f"After {step} optimiser steps."
        )
        save_model(trainer.model, tokenizer, folder, source=policy.path, card=card)

    evaluate = _evaluator(stage, hook, trainer.model, tokenizer, policy, config, save)
    fitted = fit(trainer, stage, "direct preference optimisation", config.evaluations, evaluate)
    save(stage.folder, fitted.steps)
    return {
        "loss": fitted.last.get("loss"),
        "implied_reward_accuracy": fitted.last.get("rewards/accuracies"),
        "pairs": float(len(pairs)),
        "dropped_rows": float(len(dropped.rows)),
        "steps": float(fitted.steps),
        "responses": float(2 * fitted.steps * config.training.examples_per_step),
        **fitted.metrics,
    }


def _evaluator(
    stage: Stage,
    hook: EvaluationHook,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    policy: Artifact,
    config: DPOConfig,
    save: Callable[[Path, int], None],
) -> Evaluate:
    """Return what evaluates the policy in training, and keeps it; the reference is its start."""
    from plumbline.lm.policy import Policy

    current = Policy(model, tokenizer)
    if config.tuning.method == "full":
        reference = Policy.load(policy.path)
    else:
        reference = Policy(model, tokenizer, adapter=_REFERENCE_ADAPTER)

    def evaluate(step: int) -> Mapping[str, float]:
        if config.keep_checkpoints and step:
            save(stage.folder / "checkpoints" / f"step-{step}", step)
        return hook(current, reference, step, stage.folder / "evaluations")

    return evaluate
