"""Training a text classifier on texts with labels, on the shared skeleton.

It reads plain texts, without a chat template. On disk it is what transformers opens: the moderation
measures, scorers and cleaning steps take its folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.data.records import iterate_dataset
from plumbline.lm.context import length_limit
from plumbline.lm.load import load_config, trainable_classifier
from plumbline.lm.save import model_card
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from plumbline.training.fit import fit
from plumbline.training.row_file import LazyRows, Lists, RowFile, empty_folder, file_in, in_parts
from sft.classification.config import ClassifierConfig
from sft.classification.metrics import (
    Array,
    accuracy,
    confidences,
    decisions,
    expected_calibration_error,
    f1_by_label,
)
from sft.classification.texts import labels_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BY_LABEL = "labels_held_out.json"


@stage("classifier", trains_in="one process")
def train_classifier(
    stage: Stage, *, config: ClassifierConfig, base: Artifact, texts: Artifact, seed: int
) -> Mapping[str, float | None]:
    """Train a sequence classifier that starts from a language model's weights."""
    silence_libraries()
    from transformers import DataCollatorWithPadding, TrainingArguments, set_seed

    from plumbline.training.exact_resume import ExactResume

    # 1. Texts become ids.
    tokenizer = load_tokenizer(base.path)
    labels, several = labels_of(texts.path)
    limit = length_limit(config.max_length, load_config(base.path)).tokens
    folder = empty_folder(stage, texts)

    def tokenized(split: str) -> tuple[LazyRows[dict[str, Any]], int]:
        rows, file = iterate_dataset(texts.path, split), file_in(folder, f"{split}.arrow")
        return _tokenized(rows, labels, tokenizer, limit, file, several=several)

    train, cut = tokenized("train")
    if cut:
        stage.say(f"{cut} of {len(train)} texts are longer than {limit} tokens and were cut there")

    # 2. The language model under a new head.
    set_seed(seed)
    model = trainable_classifier(base.path, config.tuning, labels, several=several)
    trainer = ExactResume(
        model=model,
        args=TrainingArguments(**config.training.arguments(stage.scratch, seed)),
        train_dataset=train,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )

    # 3. Train.
    fitted = fit(trainer, stage, "classifier", 0, None)

    # 4. How right is it on texts that it has not seen, and how sure?
    whole = model.merge_and_unload() if config.tuning.has_adapter else model
    held_out, _ = tokenized("test")
    likely = probabilities(whole, held_out, tokenizer, several=several)
    rows = iterate_dataset(texts.path, "test")
    truth = np.array([[label in row["labels"] for label in labels] for row in rows], float)
    metrics = held_out_figures(likely, truth, several=several)
    by_label = f1_by_label(decisions(likely, several=several), truth)
    write_json(stage.folder / BY_LABEL, dict(zip(labels, by_label.tolist(), strict=True)))
    whole.save_pretrained(stage.folder)
    tokenizer.save_pretrained(stage.folder)
    card = model_card(
        "Text classifier",
        f"Labels: {', '.join(labels)}. Trained on {len(train)} texts of {texts.id}; on "
        f"{len(truth)} held-out texts F1 (mean over labels) {metrics['f1']:.3f}, accuracy "
        f"{metrics['accuracy']:.3f}.",
    )
    (stage.folder / "README.md").write_text(card, encoding="utf-8")
    stage.metrics.log(fitted.steps, metrics)
    return {**metrics, "train_rows": float(len(train)), "cut_rows": float(cut), **fitted.metrics}


def held_out_figures(probabilities: Array, truth: Array, *, several: bool) -> dict[str, float]:
    """Return F1 (mean over labels), accuracy and calibration error of probabilities [N, L]."""
    decided = decisions(probabilities, several=several)
    sure, right = confidences(probabilities, truth, several=several)
    return {
        "f1": float(f1_by_label(decided, truth).mean()),
        "accuracy": accuracy(decided, truth),
        "calibration_error": expected_calibration_error(sure, right),
    }


def _tokenized(
    rows: Iterable[Mapping[str, Any]],
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    file: Path | None,
    *,
    several: bool,
) -> tuple[LazyRows[dict[str, Any]], int]:
    """Return ids and labels of texts, and how many texts were cut; they are in the file, if any."""
    place = {label: number for number, label in enumerate(labels)}
    kept, cut = RowFile({"input_ids": "ids", "labels": "numbers"}, file), 0
    for part in in_parts(rows):
        texts = tokenizer([row["text"] for row in part])["input_ids"]
        for row, ids in zip(part, texts, strict=True):
            cut += len(ids) > limit
            applies = (
                [float(label in row["labels"]) for label in labels]
                if several
                else [place[row["labels"][0]]]
            )
            kept.add({"input_ids": ids[:limit], "labels": applies})
    columns = kept.table()
    input_ids, of_rows = Lists(columns["input_ids"]), Lists(columns["labels"])

    def read(number: int) -> dict[str, Any]:
        applies = of_rows[number]
        return {"input_ids": input_ids[number], "labels": applies if several else int(applies[0])}

    return LazyRows(len(kept), read), cut


def probabilities(
    model: Any,
    examples: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    several: bool,
    batch_size: int = 64,
) -> Array:
    """Return the probability of each label for each text, [N, L]."""
    import torch

    model.eval()
    parts = []
    for start in range(0, len(examples), batch_size):
        ids = [{"input_ids": row["input_ids"]} for row in examples[start : start + batch_size]]
        batch = tokenizer.pad(ids, return_tensors="pt", padding_side="right").to(model.device)
        with torch.no_grad():
            logits = model(**batch).logits.float()
        parts.append(logits.sigmoid() if several else logits.softmax(-1))
    return torch.cat(parts).double().cpu().numpy()
