"""Training the SFT policy on demonstrations, on TRL's SFTTrainer and the shared skeleton."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plumbline.data.records import Row, read_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.hooks import EvaluationHook
from plumbline.lm.chat import ConversationRefusedError, encode_demonstration
from plumbline.lm.context import LengthLimit, length_limit
from plumbline.lm.load import load_config, trainable_causal_lm
from plumbline.lm.model_folder import source_of
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.fit import Evaluate, fit
from sft.config import SFTConfig

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from sft.trainer import HeldOut


_NOTHING_LEARNT = "has the weight 0 in each turn of the assistant's, so there is nothing to learn"


@stage("policy", trains_in="several processes")
def train_sft(
    stage: Stage,
    *,
    config: SFTConfig,
    base: Artifact,
    demonstrations: Artifact,
    seed: int,
    hook: EvaluationHook | None = None,
) -> Mapping[str, float | None]:
    """Train a policy by supervised fine-tuning; the loss is on what the assistant says.

    ``hook`` judges it on the way, with the base as the reference.
    """
    silence_libraries()
    import trl
    from transformers import set_seed

    from sft.trainer import SFTTrainer

    # 1. Conversations become ids and labels, in our one place for that.
    tokenizer = load_tokenizer(base.path)
    limit, dropped = length_limit(config.max_length, load_config(base.path)), Dropped()
    last_turn = config.loss_on == "last_turn"
    train, test = (
        tokenize(rows, tokenizer, limit, dropped, last_turn_only=last_turn)
        for rows in (read_dataset(demonstrations.path, split) for split in ("train", "test"))
    )
    stage.report_dropped(dropped)

    # 2. The base, whole or with an adapter.
    set_seed(seed)
    trainer = SFTTrainer(
        model=trainable_causal_lm(base.path, config.tuning),
        args=trl.SFTConfig(
            **config.training.trl_arguments(stage.scratch, seed),
            per_device_eval_batch_size=4 * config.training.batch_size,
        ),
        train_dataset=train,
        eval_dataset=test,
        processing_class=tokenizer,
    )

    # 3. Train, with the harness at its milestones.
    evaluate = _evaluator(stage, hook, trainer.model, tokenizer, base, config)
    fitted = fit(trainer, stage, "supervised fine-tuning", config.evaluations, evaluate)
    if not stage.writes:
        return {}  # the first process evaluates and saves

    # 4. How well does it predict demonstrations that it has not seen?
    held_out = trainer.held_out()
    stage.metrics.log(fitted.steps, {"held_out_loss": held_out.loss})
    card = _card(config, len(train), base, held_out)
    save_model(trainer.model, tokenizer, stage.folder, source=base.path, card=card)
    return {
        "held_out_loss": held_out.loss,
        "held_out_token_accuracy": held_out.token_accuracy,
        "train_rows": float(len(train)),
        "dropped_rows": float(len(dropped.rows)),
        **fitted.metrics,
    }


def _card(config: SFTConfig, rows: int, base: Artifact, held_out: HeldOut) -> str:
    return model_card(
        "Policy after supervised fine-tuning",
        f"Trained with {config.tuning.method} tuning on {rows} demonstrations "
        f"from {base.id}; held-out loss {held_out.loss:.3f}.",
    )


def _evaluator(
    stage: Stage,
    hook: EvaluationHook | None,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    base: Artifact,
    config: SFTConfig,
) -> Evaluate | None:
    """Return what evaluates the policy in training; the reference is the base."""
    from plumbline.lm.policy import Policy

    if hook is None:
        return None
    under_new_adapter = config.tuning.method != "full" and source_of(base.path).adapter is None
    reference = (
        Policy(model, tokenizer, adapter=None) if under_new_adapter else Policy.load(base.path)
    )
    current, folder = Policy(model, tokenizer), stage.folder / "evaluations"
    return lambda step: hook(current, reference, step, folder)


def tokenize(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    limit: LengthLimit,
    dropped: Dropped,
    *,
    last_turn_only: bool = False,
) -> Dataset:
    """Return ``input_ids`` and ``labels``, -100 wherever the assistant does not speak."""
    from datasets import Dataset

    kept: list[dict[str, list[int]]] = []
    lengths = []
    for row in rows:
        try:
            sequences = encode_demonstration(
                tokenizer,
                row["messages"],
                last_turn_only=last_turn_only,
                tools=json.loads(row["tools"]) if row.get("tools") else (),
            )
        except ConversationRefusedError as error:
            dropped.add(row["origin"], row["row"], str(error), row["messages"])
            continue
        if not sequences:
            reason = (
                "has the weight 0 in each turn of the assistant's, so there is nothing to learn"
            )
            dropped.add(row["origin"], row["row"], reason, row["messages"])
            continue
        lengths.append(max(len(sequence.ids) for sequence in sequences))
        if lengths[-1] > limit.tokens:
            dropped.add(row["origin"], row["row"], limit.reason, row["messages"])
            continue
        kept += [
            {
                "input_ids": ids,
                "labels": [
                    token if speaks else -100 for token, speaks in zip(ids, mask, strict=True)
                ],
            }
            for ids, mask in sequences
        ]
    advice = limit.advice(lengths)
    dropped.advice += [advice] if advice is not None else []
    if not kept:
        raise DataError(
            f"None of {len(rows)} demonstrations can be trained on: {dropped.summary()}."
        )
    return Dataset.from_list(kept)
