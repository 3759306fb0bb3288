"""Training the first policy on demonstrations, on TRL's SFTTrainer and the shared skeleton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plumbline.data.records import Row, read_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.hooks import EvaluationHook
from plumbline.lm.chat import encode_conversation
from plumbline.lm.load import trainable_causal_lm
from plumbline.lm.model_folder import source_of
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.fit import fit
from sft.config import SFTConfig

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from plumbline.lm.policy import Policy


@stage("policy")
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

    from plumbline.lm.policy import Policy
    from sft.trainer import SFTTrainer

    # 1. Conversations become ids and labels, in our one place for that.
    tokenizer = load_tokenizer(base.path)
    dropped = Dropped()
    train, test = (
        tokenize(read_dataset(demonstrations.path, split), tokenizer, config.max_length, dropped)
        for split in ("train", "test")
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
    current = Policy(trainer.model, tokenizer)
    reference = _reference(trainer.model, tokenizer, base, config) if hook is not None else None

    def evaluate(step: int) -> Mapping[str, float]:
        assert hook is not None
        assert reference is not None
        return hook(current, reference, step, stage.folder / "evaluations")

    fitted = fit(
        trainer,
        stage,
        "supervised fine-tuning",
        evaluations=config.evaluations,
        evaluate=evaluate if hook is not None else None,
    )

    # 4. How well does it predict demonstrations that it has not seen?
    held_out = trainer.held_out()
    stage.metrics.log(fitted.steps, {"held_out_loss": held_out.loss})
    card = model_card(
        "Policy after supervised fine-tuning",
        f"Trained with {config.tuning.method} tuning on {len(train)} demonstrations "
        f"from {base.id}; held-out loss {held_out.loss:.3f}.",
    )
    save_model(trainer.model, tokenizer, stage.folder, source=base.path, card=card)
    return {
        "held_out_loss": held_out.loss,
        "held_out_token_accuracy": held_out.token_accuracy,
        "train_rows": float(len(train)),
        "dropped_rows": float(len(dropped.rows)),
        **fitted.metrics,
    }


def _reference(
    model: Any, tokenizer: PreTrainedTokenizerBase, base: Artifact, config: SFTConfig
) -> Policy:
    """Return the base: under a new adapter where there is one, loaded again otherwise."""
    from plumbline.lm.policy import Policy

    if config.tuning.method != "full" and source_of(base.path).adapter is None:
        return Policy(model, tokenizer, adapter=None)
    return Policy.load(base.path)


def tokenize(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int, dropped: Dropped
) -> Dataset:
    """Return ``input_ids`` and ``labels``, -100 wherever the assistant does not speak."""
    from datasets import Dataset

    kept: list[dict[str, Any]] = []
    for row in rows:
        encoded = encode_conversation(tokenizer, row["messages"])
        if len(encoded.ids) > max_length:
            reason = f"is longer than max_length ({max_length} tokens)"
            dropped.add(row["origin"], row["row"], reason, row["messages"])
            continue
        labels = [
            token if speaks else -100
            for token, speaks in zip(encoded.ids, encoded.assistant_mask, strict=True)
        ]
        kept.append({"input_ids": encoded.ids, "labels": labels})
    if not kept:
        raise DataError(
            f"None of {len(rows)} demonstrations fits into max_length ({max_length} tokens)."
        )
    return Dataset.from_list(kept)
