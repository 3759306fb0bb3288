"""Perplexity of a policy on plain texts, as a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from evaluation.measures.texts import perplexities, text_likelihoods
from plumbline.config import Config, not_in_identity
from plumbline.data.files import read_records
from plumbline.errors import DataError
from plumbline.lm.policy import Policy
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage

TEXTS = "texts.parquet"


class TextsConfig(Config):
    """How plain texts are read."""

    column: str = "text"
    """Where the text stands in the rows of a ``.jsonl``, ``.json`` or ``.parquet`` file."""
    window: int | None = Field(None, ge=2)
    """Tokens that are read at once. Null: as many as the model can."""
    batch_size: int = not_in_identity(8, ge=1)
    """Windows that are read together."""


def texts_of(file: SourceFile, column: str = "text") -> list[str]:
    """Return the texts of a file: its rows, or a ``.txt`` or ``.md`` file as one text."""
    if file.path.suffix in (".txt", ".md"):
        texts = [file.path.read_text(encoding="utf-8")]
    else:
        texts = []
        for number, row in read_records(file.path):
            if not isinstance(row.get(column), str):
                raise DataError(
                    f"{file.path}, row {number}: there is no text under {column!r}; the row has "
                    f"{', '.join(sorted(row))}."
                )
            texts.append(row[column])
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError(f"{file.path} holds no text.")
    return texts


@stage("text-likelihood")
def measure_texts(
    stage: Stage, *, policy: Artifact, texts: Sequence[str], config: TextsConfig
) -> Mapping[str, float | None]:
    """Measure a policy's perplexity on plain texts; one row a text in ``texts.parquet``."""
    silence_libraries()
    import pandas as pd

    found = text_likelihoods(Policy.load(policy.path), texts, config.window, config.batch_size)
    pd.DataFrame(found).to_parquet(stage.folder / TEXTS, index=False)
    return dict(perplexities(found)) | {
        "texts": float(len(found)),
        "tokens": float(sum(one.tokens for one in found)),
    }
