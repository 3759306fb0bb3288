"""Over-optimisation: what best of n by the proxy does to gold, and how far it is safe to go."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from plumbline.errors import DataError
from plumbline.seeds import derive
from plumbline.statistics import best_of, gao_fit
from plumbline.statistics.crossed_effects import Floats
from reward.audit.shares import CONFIDENCE

_RESAMPLES = 500


class Point(NamedTuple):
    """Best of n for one n: gains over one response, with gold's interval over prompts."""

    n: int
    kl: float
    """Nats."""
    gold: float
    gold_low: float
    gold_high: float
    proxy: float


class OverOptimization(NamedTuple):
    """Gold and proxy against KL."""

    prompts: int
    responses: int
    """To each prompt."""
    points: list[Point]
    fit: dict[str, Any] | None
    """Of gold's gain: d (alpha - beta d) with d = sqrt(KL) (Gao et al., 2023, equation 1)."""
    peak: Point
    """Where gold is highest."""
    drop: float
    """Gold at the largest n less gold at the peak."""
    drop_low: float
    drop_high: float
    safe_kl: float
    """Up to this KL gold did not fall: the peak's where the drop is certain, else the largest."""
    rises: bool
    """Whether gold rises with the proxy at all: at the peak its interval is above 0."""


def sizes_up_to(responses: int, most: int = 1024) -> list[int]:
    """Return 1, 2, 4 … up to the number of responses, at most ``most``, and that number itself."""
    top = min(responses, most)
    sizes = [2**k for k in range(top.bit_length()) if 2**k <= top]
    return sizes if sizes[-1] == top else [*sizes, top]


def over_optimization(proxy: Floats, gold: Floats, seed: int) -> OverOptimization:
    """Return what best of n does to gold, from scores of N responses to each of P prompts.

    ``proxy`` and ``gold`` are [P, N]. Means over all subsets are exact (`best_of`); intervals are
    percentiles over resampled prompts. The drop is tested on the prompts that did not choose its
    peak: the peak is the one of each resample's other prompts.
    """
    prompts, responses = proxy.shape
    if prompts < 2 or responses < 4:
        raise DataError(
            f"Over-optimisation needs 4 responses to each of 2 prompts or more, not {responses} to "
            f"each of {prompts}."
        )
    sizes = sizes_up_to(responses)
    each = [best_of(proxy[p : p + 1], gold[p : p + 1], sizes) for p in range(prompts)]
    golds = np.stack([best.judging - best.judging[0] for best in each])  # [P, M]
    proxies = np.stack([best.ranking - best.ranking[0] for best in each])
    kl = each[0].kl
    draw = np.random.default_rng(derive(seed, "over-optimization"))
    picks = draw.integers(prompts, size=(_RESAMPLES, prompts))
    means = golds[picks].mean(axis=1)  # [R, M]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(means, tails, axis=0)
    points = [
        Point(
            size, float(kl[m]), float(golds[:, m].mean()), float(low[m]), float(high[m]),
            float(proxies[:, m].mean()),
        )
        for m, size in enumerate(sizes)
    ]  # fmt: skip
    drop, drop_low, drop_high = _drop(golds, draw)
    peak = max(points, key=lambda point: point.gold)
    return OverOptimization(
        prompts, responses, points, _fit(kl, golds.mean(axis=0)), peak, drop, drop_low, drop_high,
        peak.kl if drop_high < 0 else points[-1].kl,
        peak.gold_low > 0,
    )  # fmt: skip


def _drop(golds: Floats, draw: np.random.Generator) -> tuple[float, float, float]:
    """Return gold at the largest n less at the peak, with its interval.

    Choosing the peak on the data that measure the drop finds one in noise, so each prompt is
    measured at the peak of the others.
    """
    total, prompts = golds.sum(axis=0), len(golds)
    peaks = [int(np.argmax(total - golds[p])) for p in range(prompts)]
    drops = np.array([golds[p, -1] - golds[p, peak] for p, peak in enumerate(peaks)])
    means = drops[draw.integers(prompts, size=(_RESAMPLES, prompts))].mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(drops.mean()), float(low), float(high)


def _fit(kl: Floats, gold: Floats) -> dict[str, Any] | None:
    try:
        return dict(gao_fit(kl, gold, form="bon")._asdict())
    except DataError:  # fewer than three sizes above one
        return None
