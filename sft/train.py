"""Training the first policy on demonstrations, with TRL's SFTTrainer."""

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
from plumbline.lm.tuning import parameter_counts
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.milestones import milestones
from sft.config import SFTConfig

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


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
    from plumbline.training.exact_resume import ExactResume

    class Trainer(ExactResume, trl.SFTTrainer):  # type: ignore[misc]
        """TRL's trainer, with checkpoints that resume exactly."""

    # 1. Conversations become ids and labels, in our one place for that.
    tokenizer = load_tokenizer(base.path)
    dropped = Dropped()
    splits = {
        split: tokenize(
            read_dataset(demonstrations.path, split), tokenizer, config.max_length, dropped
        )
        for split in ("train", "test")
    }
    stage.report_dropped(dropped)

    # 2. The base, whole or with an adapter.
    set_seed(seed)
    model = trainable_causal_lm(base.path, config.tuning)
    counts = parameter_counts(model)

    # 3. Train.
    trainer = Trainer(
        model=model,
        args=trl.SFTConfig(
            **config.training.arguments(stage.scratch, seed),
            max_length=None,
            gradient_checkpointing=config.training.activation_checkpointing,
            per_device_eval_batch_size=4 * config.training.batch_size,
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["test"],
        processing_class=tokenizer,
    )
    judged = milestones(trainer.planned_steps(), config.evaluations) if hook else frozenset()
    current = Policy(trainer.model, tokenizer)
    if judged and config.tuning.method != "full" and source_of(base.path).adapter is None:
        reference = Policy(trainer.model, tokenizer, adapter=None)  # the base under the adapter
    elif judged:
        reference = Policy.load(base.path)

    def on_step(step: int) -> Mapping[str, float] | None:
        if hook is None or step not in judged:
            return None
        return hook(current, reference, step, stage.folder / "evaluations")

    trainer.run(stage, "supervised fine-tuning", on_step)

    # 4. How well does it predict demonstrations that it has not seen?
    held_out = trainer.evaluate()
    stage.metrics.log(trainer.state.global_step, {"held_out_loss": held_out["eval_loss"]})
    card = model_card(
        "Policy after supervised fine-tuning",
        f"Trained with {config.tuning.method} tuning on {len(splits['train'])} demonstrations "
        f"from {base.id}; held-out loss {held_out['eval_loss']:.3f}.",
    )
    save_model(trainer.model, tokenizer, stage.folder, source=base.path, card=card)
    return {
        "held_out_loss": held_out["eval_loss"],
        "held_out_token_accuracy": held_out["eval_mean_token_accuracy"],
        "train_rows": float(len(splits["train"])),
        "dropped_rows": float(len(dropped.rows)),
        "tokens_seen": float(trainer._total_train_tokens),
        **counts,
    }


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
