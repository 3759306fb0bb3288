"""Direct preference optimisation, on the shared skeleton."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.data.records import iterate_dataset
from plumbline.dropped import DroppedFile
from plumbline.errors import ConfigError
from plumbline.hooks import EvaluationHook
from plumbline.lm.precision import compute_precision
from plumbline.lm.save import model_card, save_model
from plumbline.lm.sharding import gathered
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.encoded_rows import limit_of
from plumbline.training.fit import Evaluate, fit
from plumbline.training.pairs import encode_pairs
from plumbline.training.row_file import empty_folder
from preference.config import DPOConfig

if TYPE_CHECKING:
    from preference.batches import PairExample
    from preference.reference import PolicyAndReference
    from preference.signs_of_trouble import Watch
    from preference.trainer import PreferenceTrainer


@stage("policy", trains_in="several processes", shares_weights=True)
@compute_precision("model", "cpu")  # before any thread starts: one flag of the whole process
def train_dpo(
    stage: Stage,
    *,
    config: DPOConfig,
    policy: Artifact,
    preferences: Artifact,
    hook: EvaluationHook,
    seed: int,
    reference: Artifact | None = None,
) -> Mapping[str, float | None]:
    """Train a policy on preferences directly. Without a ``reference``, its own start is that."""
    problem = None if reference is None else config.problem_with_reference()
    if problem is not None:
        raise ConfigError(f"{problem}.")
    silence_libraries()
    from transformers import set_seed

    from preference.batches import pair_examples
    from preference.reference import PolicyAndReference
    from preference.signs_of_trouble import Watch

    # 1. Preferences that fit, as ids.
    tokenizer, dropped = load_tokenizer(policy.path), DroppedFile(stage.folder)
    limit = limit_of(policy.path, config.max_length)
    rows = iterate_dataset(preferences.path, "train")
    pairs = encode_pairs(rows, tokenizer, limit, dropped, empty_folder(stage, preferences))
    stage.report_dropped(dropped)

    # 2. The policy and its reference, whose log-probabilities may be known before it moves.
    set_seed(seed)
    other = None if reference is None else reference.path
    roles = PolicyAndReference(
        policy.path, config.tuning, tokenizer, other, bfloat16=config.training.computes_in_bfloat16
    )
    examples = pair_examples(pairs, config, preferences.id)
    trainer = make_trainer(stage, roles, examples, config, seed)

    # 3. Train, evaluated on the way as it will be afterwards.
    def save(folder: Path, step: int) -> None:
        card = model_card(
            "Policy aligned by direct preference optimisation", f"After {step} optimiser steps."
        )
        save_model(
            roles.model, tokenizer, folder, source=policy.path, card=card, writes=stage.writes
        )

    watch = Watch(config.watch, stage.say, has_reference=config.has_reference)
    trainer.on_figures = watch.look_at_training
    evaluate = _evaluator(stage, hook, roles, config, save, watch)
    fitted = fit(trainer, stage, "direct preference optimisation", config.evaluations, evaluate)
    save(stage.folder, fitted.steps)
    return {
        "loss": fitted.last.get("loss"),
        "implied_reward_accuracy": fitted.last.get("rewards/accuracies"),
        "pairs": float(len(pairs)),
        "dropped_rows": float(len(dropped)),
        "steps": float(fitted.steps),
        "responses": float(2 * fitted.steps * config.training.examples_per_step),
        **fitted.metrics,
    }


def make_trainer(
    stage: Stage,
    roles: PolicyAndReference,
    examples: Sequence[PairExample],
    config: DPOConfig,
    seed: int,
) -> PreferenceTrainer:
    """Return the trainer of a policy on examples, with the reference that a config asks for."""
    from transformers import TrainingArguments

    from preference.batches import collate_pairs
    from preference.trainer import PreferenceTrainer

    training = config.training
    trainer = PreferenceTrainer(
        roles=roles,
        config=config,
        args=TrainingArguments(
            **training.arguments(stage.scratch, seed), remove_unused_columns=False
        ),
        train_dataset=examples,
        data_collator=collate_pairs,
        processing_class=roles.policy.tokenizer,
    )
    if config.has_reference and config.reference.kind == "cached":
        trainer.use_cached_reference(stage.cache, ld_alpha=config.ld_alpha)
    return trainer


def _evaluator(
    stage: Stage,
    hook: EvaluationHook,
    roles: PolicyAndReference,
    config: DPOConfig,
    save: Callable[[Path, int], None],
    watch: Watch,
) -> Evaluate:
    """Return what evaluates the policy in training, and keeps it; the reference is its start."""

    def evaluate(step: int) -> Mapping[str, float]:
        if config.keep_checkpoints and step:
            save(stage.folder / "checkpoints" / f"step-{step}", step)
        with gathered(roles.model, roles.start.model):
            metrics = hook(roles.policy, roles.start, step, stage.folder / "evaluations")
        watch.look_at_evaluation(step, metrics)
        return metrics

    return evaluate
