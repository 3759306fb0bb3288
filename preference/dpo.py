"""Direct preference optimisation, with TRL's DPOTrainer and the shared evaluation hook."""

from __future__ import annotations

from collections.abc import Mapping

from plumbline.data.records import read_dataset
from plumbline.dropped import Dropped
from plumbline.hooks import EvaluationHook
from plumbline.lm.load import trainable_causal_lm
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import parameter_counts
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.milestones import milestones
from plumbline.training.pairs import encode_pairs
from preference.config import DPOConfig

_REFERENCE_ADAPTER = "ref"  # TRL's name for the frozen copy of an adapter that goes on training


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

    from plumbline.lm.policy import Policy
    from plumbline.training.exact_resume import ExactResume

    class Trainer(ExactResume, trl.DPOTrainer):  # type: ignore[misc]
        """TRL's trainer, with checkpoints that resume exactly."""

    # 1. Preferences that fit.
    tokenizer = load_tokenizer(policy.path)
    dropped = Dropped()
    pairs = encode_pairs(
        read_dataset(preferences.path, "train"), tokenizer, config.max_length, dropped
    )
    stage.report_dropped(dropped)

    # 2. The policy. Its reference's log-probabilities are computed once, before it moves.
    set_seed(seed)
    model = trainable_causal_lm(policy.path, config.tuning)
    counts = parameter_counts(model)
    trainer = Trainer(
        model=model,
        args=trl.DPOConfig(
            **config.training.arguments(stage.scratch, seed),
            beta=config.beta,
            loss_type=[config.loss],
            label_smoothing=config.label_smoothing,
            max_length=None,
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=4 * config.training.batch_size,
            gradient_checkpointing=config.training.activation_checkpointing,
        ),
        train_dataset=Dataset.from_list(
            [{name: pair.row[name] for name in ("prompt", "chosen", "rejected")} for pair in pairs]
        ),
        processing_class=tokenizer,
    )

    # 3. The same judge during training as after it.
    current = Policy(trainer.model, tokenizer)
    if config.tuning.method == "full":
        reference = Policy.load(policy.path)
    else:
        reference = Policy(trainer.model, tokenizer, adapter=_REFERENCE_ADAPTER)
    steps = trainer.planned_steps()
    judged = milestones(steps, config.evaluations)

    def on_step(step: int) -> Mapping[str, float] | None:
        if step not in judged:
            return None
        folder = stage.folder / "checkpoints" / f"step-{step}"
        if config.keep_checkpoints and step:
            save_model(trainer.model, tokenizer, folder, source=policy.path, card=_card(step))
        return hook(current, reference, step, stage.folder / "evaluations")

    # 4. Train.
    trainer.run(stage, "direct preference optimisation", on_step)
    save_model(trainer.model, tokenizer, stage.folder, source=policy.path, card=_card(steps))
    lines = [line for line in trainer.state.log_history if "loss" in line]
    return {
        "loss": lines[-1]["loss"] if lines else None,
        "implied_reward_accuracy": lines[-1]["rewards/accuracies"] if lines else None,
        "pairs": float(len(pairs)),
        "dropped_rows": float(len(dropped.rows)),
        "steps": float(steps),
        "responses": float(2 * steps * config.training.examples_per_step),
        "tokens_seen": float(trainer._total_train_tokens),
        **counts,
    }


def _card(step: int) -> str:
    return model_card(
        "Policy aligned by direct preference optimisation", f"After {step} optimiser steps."
    )
