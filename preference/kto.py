"""Training on responses that were liked or not, without pairs: KTO and its relatives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.data.records import Row, columns_of, iterate_dataset
from plumbline.dropped import DroppedFile
from plumbline.hooks import EvaluationHook
from plumbline.lm.precision import compute_precision
from plumbline.lm.save import model_card, save_model
from plumbline.lm.sharding import gathered
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.encoded_rows import limit_of
from plumbline.training.fit import fit
from plumbline.training.row_file import empty_folder
from preference.config import KTOConfig
from preference.labels import LabeledExample, encode_labeled, unpaired_rows, with_mismatches

if TYPE_CHECKING:
    from preference.label_trainer import LabelTrainer
    from preference.reference import PolicyAndReference


@stage("policy", trains_in="several processes", shares_weights=True)
@compute_precision("model", "cpu")  # before any thread starts: one flag of the whole process
def train_kto(
    stage: Stage,
    *,
    config: KTOConfig,
    policy: Artifact,
    labels: Artifact,
    hook: EvaluationHook,
    seed: int,
) -> Mapping[str, float | None]:
    """Train a policy on labels without pairs; its own start is the reference.

    ``labels`` are responses that were liked or not, or preferences, of which each side is one.
    """
    silence_libraries()
    from transformers import set_seed

    from preference.reference import PolicyAndReference
    from preference.signs_of_trouble import FOR_LABELS, Watch

    # 1. Responses with their labels, as ids.
    tokenizer, dropped = load_tokenizer(policy.path), DroppedFile(stage.folder)
    limit = limit_of(policy.path, config.max_length)
    own = encode_labeled(_rows_of(labels), tokenizer, limit, dropped, empty_folder(stage, labels))
    examples = with_mismatches(own, limit) if config.has_kl else own
    stage.report_dropped(dropped)

    # 2. The policy and its reference, whose log-probabilities may be known before it moves.
    set_seed(seed)
    bfloat16 = config.training.computes_in_bfloat16
    roles = PolicyAndReference(policy.path, config.tuning, tokenizer, bfloat16=bfloat16)
    trainer = make_label_trainer(stage, roles, examples, config, seed)

    # 3. Train, evaluated on the way as it will be afterwards.
    def save(folder: Path, step: int) -> None:
        card = model_card(f"Policy aligned by {config.loss}", f"After {step} optimiser steps.")
        how: Any = {"source": policy.path, "card": card, "writes": stage.writes}
        save_model(roles.model, tokenizer, folder, **how)

    def evaluate(step: int) -> Mapping[str, float]:
        if config.keep_checkpoints and step:
            save(stage.folder / "checkpoints" / f"step-{step}", step)
        with gathered(roles.model, roles.start.model):
            metrics = hook(roles.policy, roles.start, step, stage.folder / "evaluations")
        watch.look_at_evaluation(step, metrics)
        return metrics

    watch = Watch(config.watch, stage.say, texts=FOR_LABELS)
    trainer.on_figures = watch.look_at_training
    fitted = fit(trainer, stage, "labels without pairs", config.evaluations, evaluate)
    save(stage.folder, fitted.steps)
    return {
        "loss": fitted.last.get("loss"),
        "implied_reward_accuracy": fitted.last.get("rewards/accuracies"),
        "labels": float(len(examples)),
        "liked_share": sum(example.desirable for example in own) / len(own),
        "dropped_rows": float(len(dropped)),
        "steps": float(fitted.steps),
        "responses": float(fitted.steps * config.training.examples_per_step),
        **fitted.metrics,
    }


def _rows_of(labels: Artifact) -> Iterable[Row]:
    rows = iterate_dataset(labels.path, "train")
    return unpaired_rows(rows) if "chosen" in columns_of(labels.path, "train") else rows


def make_label_trainer(
    stage: Stage,
    roles: PolicyAndReference,
    examples: Sequence[LabeledExample],
    config: KTOConfig,
    seed: int,
) -> LabelTrainer:
    """Return the trainer of a policy on examples, with the reference that a config asks for."""
    from transformers import TrainingArguments

    from preference.label_trainer import LabelTrainer, collate_labeled

    arguments = config.training.arguments(stage.scratch, seed)
    trainer = LabelTrainer(
        roles=roles,
        config=config,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        train_dataset=examples,
        data_collator=collate_labeled,
        processing_class=roles.policy.tokenizer,
    )
    if config.reference.kind == "cached":
        trainer.use_cached_reference(stage.cache)
    return trainer
