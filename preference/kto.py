"""Training on responses that were liked or not, without pairs: KTO and its relatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from plumbline.data.records import Row, read_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.hooks import EvaluationHook
from plumbline.lm.chat import ConversationRefusedError, encode_response
from plumbline.lm.context import LengthLimit, length_limit
from plumbline.lm.load import load_config
from plumbline.lm.precision import compute_precision
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.fit import fit
from preference.config import KTOConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LabelledExample(NamedTuple):
    """A response as ids, and whether it was liked."""

    prompt_ids: list[int]
    response_ids: list[int]
    desirable: bool


def unpaired_rows(rows: Sequence[Row]) -> list[Row]:
    """Return each side of preference rows as a row of its own, the chosen ones liked."""
    return [
        {
            "prompt": row["prompt"],
            "response": row[side],
            "label": side == "chosen",
            "origin": row.get("origin", "preferences"),
            "row": row.get("row", number),
        }
        for number, row in enumerate(rows, 1)
        for side in ("chosen", "rejected")
    ]


def encode_labelled(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, limit: LengthLimit, dropped: Dropped
) -> list[LabelledExample]:
    """Return rows ``prompt``, ``response`` and ``label`` as ids; others are kept with the reason.

    Raises `DataError` where responses of only one label are left.
    """
    examples: list[LabelledExample] = []
    for row in rows:
        try:
            prompt_ids, ids = encode_response(
                tokenizer, row["prompt"], row["response"][-1]["content"]
            )
        except ConversationRefusedError as error:
            dropped.add(row["origin"], row["row"], str(error), row)
            continue
        if len(prompt_ids) + len(ids) > limit.tokens:
            dropped.add(row["origin"], row["row"], limit.reason, row)
        else:
            examples.append(LabelledExample(prompt_ids, ids, bool(row["label"])))
    liked = sum(example.desirable for example in examples)
    if not 0 < liked < len(examples):
        raise DataError(
            f"{liked} of {len(examples)} responses that can be trained on were liked; both labels "
            f"are needed. Left out: {dropped.summary() or 'none'}."
        )
    return examples


@stage("policy")
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

    from preference.label_trainer import LabelTrainer, collate_labelled
    from preference.reference import PolicyAndReference

    # 1. Responses with their labels, as ids.
    tokenizer, dropped = load_tokenizer(policy.path), Dropped()
    limit = length_limit(config.max_length, load_config(policy.path))
    rows = unpaired_rows(read_dataset(preferences.path, "train"))
    examples = encode_labelled(rows, tokenizer, limit, dropped)
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
        data_collator=collate_labelled,
        processing_class=tokenizer,
    )

    # 3. Train, evaluated on the way as it will be afterwards.
    def save(folder: Path, step: int) -> None:
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
