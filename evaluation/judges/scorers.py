"""How well a scorer judges: against people's preferences, and against other scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plumbline.data.records import Row
from plumbline.hooks import Scorer


def agreement_with_pairs(scorer: Scorer, pairs: Sequence[Row]) -> dict[str, float]:
    """Return the share of pairs whose chosen response scores higher, and by how much on average.

    ``accuracy`` counts equal scores by half; ``margin`` is in the scorer's own units. Nothing for
    no pairs.
    """
    if not pairs:
        return {}
    prompts = [row["prompt"] for row in pairs]
    chosen, rejected = (
        scorer.score(prompts, [row[side][-1]["content"] for row in pairs])
        for side in ("chosen", "rejected")
    )
    margins = [mine - other for mine, other in zip(chosen, rejected, strict=True)]
    return {
        "accuracy": sum((m > 0) + 0.5 * (m == 0) for m in margins) / len(margins),
        "margin": sum(margins) / len(margins),
    }


def agreement_with_scorers(
    scores: Sequence[float], others: Mapping[str, Sequence[float]], texts: Sequence[str]
) -> dict[str, float]:
    """Return rank correlations (Spearman) of scores with other scorers' and with length in words.

    A correlation with something that is the same for every answer is left away.
    """
    import numpy as np
    from scipy import stats

    compared = dict(others) | {"words": [float(len(text.split())) for text in texts]}
    return {
        f"correlation_with_{name}": float(stats.spearmanr(scores, values).statistic)
        for name, values in compared.items()
        if np.ptp(scores) > 0 and np.ptp(values) > 0
    }
