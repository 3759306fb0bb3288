"""Training a process reward model: a token classifier on the ends of labelled steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from plumbline.data.records import Row
from plumbline.dropped import DroppedFile
from plumbline.lm.load import trainable_sequence_scorer
from plumbline.lm.precision import compute_precision
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from plumbline.training.encoded_rows import limit_of
from plumbline.training.fit import fit
from plumbline.training.row_file import empty_folder
from reward.process.config import ProcessConfig
from reward.process.data import are_from_rollouts, encode_steps, labeled_rows
from reward.process.scorer import PROCESS, ProcessScorer


@stage("process-reward-model", trains_in="one process")
@compute_precision("model", "cpu")  # before any thread starts: one flag of the whole process
def train_process_reward(
    stage: Stage,
    *,
    config: ProcessConfig,
    policy: Artifact,
    steps: Artifact,
    split: str,
    seed: int,
) -> Mapping[str, float | None]:
    """Train a process reward model that starts from a policy's weights.

    ``split`` says how responses are cut when they are scored; it is that of the labelled steps.
    """
    silence_libraries()
    from transformers import TrainingArguments, set_seed

    from reward.process.trainer import WRONG_RIGHT, ProcessTrainer

    # 1. Labelled steps, as ids.
    tokenizer, dropped = load_tokenizer(policy.path), DroppedFile(stage.folder)
    limit = limit_of(policy.path, config.max_length)
    hard = are_from_rollouts(steps) if config.hard_labels is None else config.hard_labels
    train, test = (labeled_rows(steps, part, hard=hard) for part in ("train", "test"))
    examples = encode_steps(train, tokenizer, limit, dropped, empty_folder(stage, steps))
    stage.report_dropped(dropped)

    # 2. The policy's weights under a new head of two labels.
    set_seed(seed)
    model = trainable_sequence_scorer(
        policy.path, config.tuning, labels=WRONG_RIGHT, per_token=True
    )
    model.train()
    trainer = ProcessTrainer(
        model=model,
        pad_id=int(tokenizer.pad_token_id),
        args=TrainingArguments(
            **config.training.arguments(stage.scratch, seed), remove_unused_columns=False
        ),
        train_dataset=examples,
        processing_class=tokenizer,
    )

    # 3. Train, save, and ask the saved model about held-out steps.
    fitted = fit(trainer, stage, "process reward model", 0, None)
    card = model_card("Process reward model", f"Trained on {len(examples)} rows of {steps.id}.")
    save_model(trainer.model, tokenizer, stage.folder, source=policy.path, card=card)
    write_json(stage.folder / PROCESS, {"split": split, "max_length": limit.tokens})
    return {
        **step_accuracy(ProcessScorer(stage.folder), test),
        "train_accuracy": fitted.last.get("accuracy"),
        "loss": fitted.last.get("loss"),
        "rows": float(len(examples)),
        "steps": float(sum(len(example.places) for example in examples)),
        "dropped_rows": float(len(dropped)),
        **fitted.metrics,
    }


def step_accuracy(scorer: ProcessScorer, rows: Iterable[Row]) -> dict[str, float | None]:
    """Return how many held-out steps a model judges as they are labelled, and as most of them are.

    A step counts as right where its label is above one half. ``majority_accuracy`` is that of
    saying always what most of the steps are.
    """
    pairs: list[tuple[float, float]] = []
    for row in rows:
        (scores,) = scorer.step_scores([row["prompt"]], ["".join(row["completions"])])
        # A response may be cut otherwise than its labels are; then they say nothing of its steps.
        if len(scores) == len(row["labels"]):
            pairs += [
                (score, label)
                for score, label in zip(scores, row["labels"], strict=True)
                if label is not None
            ]
    if not pairs:
        return {"step_accuracy": None, "majority_accuracy": None, "held_out_steps": 0.0}
    right = sum((score > 0.5) == (label > 0.5) for score, label in pairs) / len(pairs)
    good = sum(label > 0.5 for _, label in pairs) / len(pairs)
    return {
        "step_accuracy": right,
        "majority_accuracy": max(good, 1 - good),
        "held_out_steps": float(len(pairs)),
    }
