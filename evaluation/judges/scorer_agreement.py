"""Agreement of a scorer with preferences of people, and with other scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evaluation.words import words_of
from plumbline.data.records import Row
from plumbline.hooks import Scorer


def agreement_with_pairs(scorer: Scorer, pairs: Sequence[Row]) -> dict[str, float]:
    """Return the share of pairs whose chosen response scores higher, and the mean difference.

    ``accuracy`` counts equal scores as half; ``margin`` is in the scorer's own units. Empty for no
    pairs.
    """
    if not pairs:
        return {}
    prompts = [row["prompt"] for row in pairs]
    chosen, rejected = (
        scorer.score(prompts, [row[side][-1]["content"] for row in pairs])
        for side in ("chosen", "rejected")
    )
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    return {
        "accuracy": sum((m > 0) + 0.5 * (m == 0) for m in margins) / len(margins),
        "margin": sum(margins) / len(margins),
    }


def agreement_with_scorers(
    scores: Sequence[float], others: Mapping[str, Sequence[float]], texts: Sequence[str]
) -> dict[str, float]:
    """Return rank correlations (Spearman) of scores with other scorers and with length in words.

    There is no correlation with values that are equal for all responses.
    """
    import numpy as np
    from scipy import stats

    columns = dict(others) | {"words": [float(len(words_of(text))) for text in texts]}
    return {
        f"correlation_with_{name}": float(stats.spearmanr(scores, values).statistic)
        for name, values in columns.items()
        if np.ptp(scores) > 0 and np.ptp(values) > 0
    }
