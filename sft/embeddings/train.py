"""Training an embedding model on pairs of texts, on the shared skeleton.

On disk it has the layout of sentence-transformers; `TextEmbedder` opens it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plumbline.data.stored_rows import StoredRows
from plumbline.lm.context import length_limit
from plumbline.lm.load import load_config, trainable_trunk
from plumbline.lm.save import model_card
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.training.fit import fit
from plumbline.training.row_file import LazyRows
from sft.embeddings.config import EmbeddingConfig
from sft.embeddings.embedder import vectors, write_sentence_transformer
from sft.embeddings.metrics import mean_reciprocal_rank, ranks, recall_at
from sft.embeddings.pairs import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@stage("embedding-model", trains_in="one process")
def train_embeddings(
    stage: Stage, *, config: EmbeddingConfig, base: Artifact, pairs: Artifact, seed: int
) -> Mapping[str, float | None]:
    """Train a language model's decoder to put a query close to the text that it should find."""
    silence_libraries()
    from transformers import TrainingArguments, set_seed

    from sft.embeddings.trainer import EmbeddingTrainer

    # 1. The pairs, and the decoder to start from.
    tokenizer = load_tokenizer(base.path)
    limit = length_limit(config.max_length, load_config(base.path)).tokens
    train: Sequence[Row] = StoredRows(pairs.path, "train", stage.scratch)
    test = StoredRows(pairs.path, "test", stage.scratch)
    set_seed(seed)
    model = trainable_trunk(base.path, config.tuning)

    def embed(texts: Sequence[str]) -> Any:
        was_training = model.training
        model.eval()
        embedded = vectors(model, tokenizer, texts, config.pooling, limit, 64)
        model.train(was_training)
        return embedded

    # 2. How well does it find texts at the start, and which wrong ones does it take for right?
    start = retrieval(embed, test)
    if config.mined_negatives:
        train = with_mined_negatives(embed, train, config.mined_negatives, config.mined_from)

    # 3. Train: the other texts of a batch are what a query should not find.
    trainer = EmbeddingTrainer(
        model=model,
        tokenizer=tokenizer,
        pooling=config.pooling,
        temperature=config.temperature,
        limit=limit,
        args=TrainingArguments(
            **config.training.arguments(stage.scratch, seed), remove_unused_columns=False
        ),
        train_dataset=train,
    )
    fitted = fit(trainer, stage, "embedding model", 0, None)

    # 4. Held-out queries among all held-out texts, before and after.
    end = retrieval(embed, test)
    whole = model.merge_and_unload() if config.tuning.has_adapter else model
    _save(stage, whole, tokenizer, config, limit, start, end, len(train))
    stage.metrics.log(fitted.steps, end)
    before = {f"{name}_at_start": value for name, value in start.items()}
    return {**end, **before, "train_rows": float(len(train)), **fitted.metrics}


def retrieval(embed: Any, rows: Sequence[Row]) -> dict[str, float]:
    """Return how well queries find their texts among all texts of the rows."""
    queries = list(dict.fromkeys(row["query"] for row in rows))
    texts = list(dict.fromkeys(row["positive"] for row in rows))
    pairs = {(row["query"], row["positive"]) for row in rows}
    right = np.array([[(query, text) in pairs for text in texts] for query in queries])
    places = ranks(embed(queries) @ embed(texts).T, right)
    return {
        "recall_at_1": recall_at(1, places),
        "recall_at_5": recall_at(5, places),
        "mrr": mean_reciprocal_rank(places),
    }


def with_mined_negatives(embed: Any, rows: Sequence[Row], count: int, skip: int) -> LazyRows[Row]:
    """Return rows with ``negatives``: texts of other queries that are most alike to each query.

    The ``skip`` most alike are passed over, since they may be right answers, and so are texts that
    some row has as the query's own.
    """
    queries = list(dict.fromkeys(row["query"] for row in rows))
    texts = list(dict.fromkeys(row["positive"] for row in rows))
    own = {(row["query"], row["positive"]) for row in rows}
    similarities = embed(queries) @ embed(texts).T
    negatives = {}
    for query, row in zip(queries, similarities, strict=True):
        order = [texts[n] for n in np.argsort(-row, kind="stable")]
        negatives[query] = [t for t in order if (query, t) not in own][skip : skip + count]

    def read(number: int) -> Row:
        row = rows[number]
        return row | {"negatives": negatives[row["query"]]}

    return LazyRows(len(rows), read)


def _save(
    stage: Stage,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    config: EmbeddingConfig,
    limit: int,
    start: Mapping[str, float],
    end: Mapping[str, float],
    rows: int,
) -> None:
    model.save_pretrained(stage.folder)
    tokenizer.save_pretrained(stage.folder)
    width = int(model.config.get_text_config().hidden_size)
    write_sentence_transformer(stage.folder, width, config.pooling, limit)
    card = model_card(
        "Embedding model",
        f"Trained on {rows} pairs. Held-out queries find their text first in "
        f"{end['recall_at_1']:.1%} of cases ({start['recall_at_1']:.1%} at the start).",
        library="sentence-transformers",
    )
    (stage.folder / "README.md").write_text(card, encoding="utf-8")
