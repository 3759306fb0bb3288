"""Training on responses that were liked or not, without pairs: KTO and its relatives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from plumbline.data.records import read_dataset
from plumbline.dropped import Dropped
from plumbline.hooks import EvaluationHook
from plumbline.lm.context import length_limit
from plumbline.lm.load import load_config
from plumbline.lm.precision import compute_precision
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.fit import fit
from preference.config import KTOConfig
from preference.labels import encode_labeled, unpaired_rows


@stage("policy", trains_in="several processes")
@compute_precision("model", "cpu")  # before any thread starts: one flag of the whole process
def train_kto(
    stage: Stage,
    *,
    config: KTOConfig,
    policy: Artifact,
    preferences: Artifact,
    hook: EvaluationHook,
    seed: int,
) -> Mapping[str, float | None]:
    """Train a policy on both sides of preferences as single labels; its start is the reference."""
    silence_libraries()
    from transformers import TrainingArguments, set_seed

    from preference.label_trainer import LabelTrainer, collate_labeled
    from preference.reference import PolicyAndReference

    # 1. Responses with their labels, as ids.
    tokenizer, dropped = load_tokenizer(policy.path), Dropped()
    limit = length_limit(config.max_length, load_config(policy.path))
    rows = unpaired_rows(read_dataset(preferences.path, "train"))
    examples = encode_labeled(rows, tokenizer, limit, dropped)
    stage.report_dropped(dropped)

    # 2. The policy and its reference.
    set_seed(seed)
    roles = PolicyAndReference(policy.path, config.tuning, tokenizer)
    arguments = config.training.arguments(stage.scratch, seed)
    trainer = LabelTrainer(
        roles=roles,
        config=config,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        train_dataset=examples,
        data_collator=collate_labeled,
        processing_class=tokenizer,
    )

    # 3. Train, evaluated on the way as it will be afterwards.
    def save(folder: Path, step: int) -> None:
        if not stage.writes:
            return
        card = model_card(f"Policy aligned by {config.loss}", f"After {step} optimiser steps.")
        save_model(roles.model, tokenizer, folder, source=policy.path, card=card)

    def evaluate(step: int) -> Mapping[str, float]:
        if config.keep_checkpoints and step:
            save(stage.folder / "checkpoints" / f"step-{step}", step)
        return hook(roles.policy, roles.start, step, stage.folder / "evaluations")

    fitted = fit(trainer, stage, "labels without pairs", config.evaluations, evaluate)
    save(stage.folder, fitted.steps)
    return {
        "loss": fitted.last.get("loss"),
        "labels": float(len(examples)),
        "dropped_rows": float(len(dropped.rows)),
        "steps": float(fitted.steps),
        "responses": float(fitted.steps * config.training.examples_per_step),
        **fitted.metrics,
    }
