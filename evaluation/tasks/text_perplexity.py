"""Perplexity of a policy on plain texts, as a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from evaluation.measures.text_perplexity import perplexities, text_likelihoods
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
    """The column of the text in a ``.jsonl``, ``.json`` or ``.parquet`` file."""
    window: int | None = Field(None, ge=2)
    """Tokens that the model reads at once. Null: as many as it can."""
    batch_size: int = not_in_identity(8, ge=1)
    """Windows per batch."""


def texts_of(file: SourceFile, column: str = "text") -> list[str]:
    """Return the texts of a file: one per row, or a ``.txt`` or ``.md`` file as one text."""
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
        raise DataError(f"{file.path} holds no text, so there is no perplexity to measure.")
    return texts


@stage("text-likelihood")
def measure_texts(
    stage: Stage, *, policy: Artifact, texts: Sequence[str], config: TextsConfig
) -> Mapping[str, float | None]:
    """Measure the perplexity of a policy on plain texts; one row per text in ``texts.parquet``."""
    silence_libraries()
    import pandas as pd

    likelihoods = text_likelihoods(
        Policy.load(policy.path), texts, config.window, config.batch_size
    )
    pd.DataFrame(likelihoods).to_parquet(stage.folder / TEXTS, index=False)
    return dict(perplexities(likelihoods)) | {
        "texts": float(len(likelihoods)),
        "tokens": float(sum(likelihood.tokens for likelihood in likelihoods)),
    }
