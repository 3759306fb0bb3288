"""An embedding model in a folder, as what turns texts, and pairs of responses, into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plumbline.data.records import Row
from plumbline.lm.load import load_trunk
from plumbline.lm.model_folder import source_of
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, read_json, write_json
from sft.embeddings.pooling import POOLINGS, pooling_of

#: As sentence-transformers keeps them.
MODULES, POOLING = "modules.json", "1_Pooling/config.json"
_MODULE = "sentence_transformers.models"


class TextEmbedder:
    """Turns texts into vectors of length 1."""

    def __init__(self, model: Artifact | Path, batch_size: int = 64) -> None:
        silence_libraries()
        folder = model.path if isinstance(model, Artifact) else model
        self.folder = Path(source_of(folder).base.name_or_path)
        self._batch_size = batch_size
        self._settings = read_json(self.folder / POOLING)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return load_trunk(self.folder).eval(), load_tokenizer(self.folder)

    def embed_texts(self, texts: Sequence[str]) -> Any:
        """Return a vector per text, [N, D]."""
        model, tokenizer = self._loaded
        pooling = pooling_of(self._settings, self.folder / POOLING)
        limit = read_json(self.folder / "sentence_bert_config.json")["max_seq_length"]
        return vectors(model, tokenizer, texts, pooling, limit, self._batch_size)

    def embed(self, rows: Sequence[Row]) -> Any:
        """Return features of N pairs of responses, [N, 3 D], for the choice of pairs to label.

        Three blocks of equal weight: the prompt; what the two responses say together, a + b; and
        how they differ, |a - b|. Neither depends on which side is which.
        """
        prompts, a, b = (
            self.embed_texts([_text(row[part]) for row in rows]) for part in ("prompt", "a", "b")
        )
        blocks = (prompts, a + b, np.abs(a - b))
        return np.concatenate([_of_length_1(block) for block in blocks], axis=1)


def vectors(
    model: Any, tokenizer: Any, texts: Sequence[str], pooling: str, limit: int, batch_size: int
) -> Any:
    """Return a vector of length 1 for each text, [N, D]."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # less padding
    result: Any = None
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=limit,
            padding_side="right", return_tensors="pt",
        ).to(model.device)  # fmt: skip
        ids, mask = batch["input_ids"], batch["attention_mask"]
        with torch.no_grad():
            states = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            pooled = POOLINGS[pooling].function(states, mask).float()
            unit = torch.nn.functional.normalize(pooled, dim=-1)
        if result is None:
            result = np.zeros((len(texts), unit.shape[1]))
        result[rows] = unit.cpu().numpy()
    return result


def write_sentence_transformer(folder: Path, width: int, pooling: str, max_length: int) -> None:
    """Write beside a model what sentence-transformers opens it by."""
    (folder / POOLING).parent.mkdir(exist_ok=True)
    write_json(
        folder / POOLING,
        {
            "word_embedding_dimension": width,
            **{row.key: row.name == pooling for row in POOLINGS.values()},
            "pooling_mode_cls_token": False,
            "pooling_mode_max_tokens": False,
        },
    )
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": max_length, "do_lower_case": False},
    )
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write_json(
        folder / MODULES,
        [
            {"idx": n, "name": str(n), "path": path, "type": f"{_MODULE}.{name}"}
            for n, (path, name) in enumerate(modules)
        ],
    )


def _of_length_1(block: Any) -> Any:
    return block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)


def _text(messages: Sequence[Any]) -> str:
    return "\n".join(message["content"] for message in messages)
