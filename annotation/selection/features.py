"""Features of pairs: vectors that are close where pairs are alike, to keep a batch diverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from plumbline.data.records import Row


class PairEmbedder(Protocol):
    """Turns pairs into vectors whose directions are close where the pairs are alike."""

    def embed(self, rows: Sequence[Row]) -> Any:
        """Return features of N pairs, ``[N, D]``: a numpy array or a scipy sparse matrix.

        Swapping a pair's sides must not change its features: it is the same pair.
        """
        ...


class WordFeatures:
    """TF-IDF of words and word pairs: nothing to fit; 10,000 pairs take a second.

    Three blocks of equal weight stand side by side: the prompt; what the two responses say
    together, a + b; and how they differ, |a - b|. Neither depends on which side is which.
    """

    def __init__(self, size: int = 2**14) -> None:
        self.size = size
        """Columns of each block; words are hashed into them."""

    def embed(self, rows: Sequence[Row]) -> Any:
        """Return sparse features, ``[N, 3 size]``."""
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
        from sklearn.preprocessing import normalize

        words = HashingVectorizer(
            n_features=self.size,
            ngram_range=(1, 2),
            token_pattern=r"(?u)\w+|[^\w\s]",  # a number or a mark may be all that differs
            alternate_sign=False,
            norm=None,
        )
        count = len(rows)
        texts = [_text(row["prompt"]) for row in rows]
        texts += [_text(row[side]) for side in ("a", "b") for row in rows]
        # One weighting for all texts: a word that every response has says little about any of them.
        weighted = TfidfTransformer(sublinear_tf=True).fit_transform(words.transform(texts))
        prompts, a, b = (weighted[start * count : (start + 1) * count] for start in range(3))
        return hstack([normalize(block) for block in (prompts, a + b, abs(a - b))], format="csr")


def _text(messages: Sequence[Any]) -> str:
    return "\n".join(message["content"] for message in messages)
