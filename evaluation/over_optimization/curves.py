"""Over-optimization: gold and proxy against KL, the drop after the peak, and the fit of Gao et al.

Gao, Schulman and Hilton (2022), "Scaling Laws for Reward Model Overoptimization": the true (gold)
score follows d (alpha - beta log d) over reinforcement learning and d (alpha - beta d) over best
of n, with d the root of the KL to the policy at the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import METRICS, read_metrics
from plumbline.statistics import BestOf, GaoFit, at_kl, band, gao_fit, mean_and_se, mean_interval
from plumbline.statistics.frontier import Form

#: reward -> training seed -> policy
PoliciesByReward = Mapping[str, Mapping[str, Artifact]]
Scores = npt.NDArray[np.float64]
CONFIDENCE = 0.95
#: Points of a mean curve over seeds.
_GRID = 24
_SEEDS_FOR_AN_INTERVAL = 3
_EVALUATED = "eval/"


class OptimizationCurve(NamedTuple):
    """One policy at each of its C checkpoints during training, on P prompts."""

    steps: list[int]
    kl: Scores
    """[C]"""
    gold: Scores
    """[C]"""
    proxy: Scores
    """[C], the reward that it was trained on."""
    words: Scores
    """[C]"""
    gold_by_prompt: Scores
    """[C, P], the same prompts in the same order for all policies."""
    proxy_by_prompt: Scores
    """[C, P]"""

    def gain(self, score: str) -> Scores:
        """Return the increase of a score since the start at each checkpoint, [C]."""
        values: Scores = getattr(self, score)
        gains: Scores = values - values[0]
        return gains


class ScoreChange(NamedTuple):
    """The change of a score with its interval over seeds and prompts."""

    mean: float
    low: float
    high: float


def optimization_curve(policy: Artifact, gold: str, proxy: str) -> OptimizationCurve:
    """Return the curve of a policy from its evaluations during training.

    Raises `DataError` where there are too few, or one lacks a score.
    """
    lines = [line for line in read_metrics(policy.path / METRICS) if f"{_EVALUATED}{gold}" in line]
    if len(lines) < 3:
        raise DataError(
            f"{policy.id} was evaluated {len(lines)} time(s) during training, too few to see a "
            "score rise and fall. Set ppo.evaluations to 4 or more."
        )
    by_prompt = [_by_prompt(policy, int(line["step"]), (gold, proxy)) for line in lines]
    return OptimizationCurve(
        [int(line["step"]) for line in lines],
        *(
            np.array([float(line[f"{_EVALUATED}{name}"]) for line in lines])
            for name in ("kl", gold, proxy, "words")
        ),
        *(np.stack([scores[name] for scores in by_prompt]) for name in (gold, proxy)),
    )


def _by_prompt(policy: Artifact, step: int, scorers: Sequence[str]) -> dict[str, Scores]:
    import pandas as pd

    path = policy.path / "evaluations" / f"step-{step}.parquet"
    table = pd.read_parquet(path, columns=["prompt_id", *scorers]).sort_values("prompt_id")
    return {name: table[name].to_numpy(dtype=np.float64) for name in scorers}


def peak_checkpoints(curves: Sequence[OptimizationCurve]) -> list[int]:
    """Return for each seed the checkpoint at which the mean gold of the *other* seeds is highest.

    Choosing the peak and measuring the drop on the same data finds a drop even in pure noise. A
    single seed has no others, so its own peak is taken; the verdict says so.
    """
    checkpoints = min(len(curve.steps) for curve in curves)
    golds = np.stack([curve.gold[:checkpoints] for curve in curves])
    if len(curves) == 1:
        return [int(golds[0].argmax())]
    return [
        int(np.delete(golds, seed, axis=0).mean(axis=0).argmax()) for seed in range(len(curves))
    ]


def drop_after_peak(curves: Sequence[OptimizationCurve]) -> dict[str, Any]:
    """Return the changes of gold and proxy to the last checkpoint, from the peak and the start.

    Both are paired by prompt; the intervals cover other seeds and other prompts. A policy counts
    as over-optimized where, over either span, gold's whole interval is below 0 and the proxy's is
    above 0. By chance alone this happens in at most 5 % of experiments, 2.5 % per span.
    """
    peaks = peak_checkpoints(curves)
    spans = {"from_peak": peaks, "from_start": [0] * len(curves)}
    changes = {
        span: {score: _change(curves, score, start)._asdict() for score in ("gold", "proxy")}
        for span, start in spans.items()
    }
    at_peaks = list(zip(curves, peaks, strict=True))
    return {
        **changes,
        "seeds": len(curves),
        "peak_kl": mean_and_se([float(curve.kl[p]) for curve, p in at_peaks]).mean,
        "peak_gain": mean_and_se([float(curve.gain("gold")[p]) for curve, p in at_peaks]).mean,
        "last_kl": mean_and_se([float(curve.kl[-1]) for curve in curves]).mean,
        "last_gain": mean_and_se([float(curve.gain("gold")[-1]) for curve in curves]).mean,
        "over_optimized": any(_is_over_optimized(change) for change in changes.values()),
    }


def _change(curves: Sequence[OptimizationCurve], score: str, start: Sequence[int]) -> ScoreChange:
    """Return the change of a score from a checkpoint of each seed to its last one, by prompt."""
    by_prompt = [getattr(curve, f"{score}_by_prompt") for curve in curves]
    changes = np.stack(
        [scores[-1] - scores[first] for scores, first in zip(by_prompt, start, strict=True)]
    )
    mean = mean_interval(changes, confidence=CONFIDENCE)
    return ScoreChange(mean.difference, mean.low, mean.high)


def _is_over_optimized(change: Mapping[str, Mapping[str, float]]) -> bool:
    return bool(change["gold"]["high"] < 0 < change["proxy"]["low"])


def verdict(reward: str, drop: Mapping[str, Any]) -> str:
    """Return the result of `drop_after_peak` as a sentence that states no more than it."""
    spans = [span for span in ("from_peak", "from_start") if _is_over_optimized(drop[span])]
    span = spans[0] if spans else "from_peak"
    gold, proxy = drop[span]["gold"], drop[span]["proxy"]
    start = f"KL {drop['peak_kl']:.2f}" if span == "from_peak" else "the SFT policy"
    changes = (
        f"from {start} to KL {drop['last_kl']:.2f} nats, gold changed by {gold['mean']:+.2f} "
        f"points ({gold['low']:+.2f} to {gold['high']:+.2f}) and the reward that was trained on by "
        f"{proxy['mean']:+.2f} standard deviations ({proxy['low']:+.2f} to {proxy['high']:+.2f})"
    )
    if spans:
        sentence = f"{reward}: over-optimized. F{changes[1:]}."
    else:
        sentence = (
            f"{reward}: {changes}. This does not show that gold falls while the reward rises."
        )
    if drop["seeds"] == 1:
        sentence += " There is one seed, so the peak was chosen on the data that measure the drop."
    return sentence


def fit_gain(curves: Sequence[OptimizationCurve], score: str) -> dict[str, Any]:
    """Return the fit of Gao et al. to the gain of a score, over the checkpoints of all seeds."""
    kl = np.concatenate([curve.kl for curve in curves])
    gain = np.concatenate([curve.gain(score) for curve in curves])
    return _fit(kl, gain, "rl")


def _fit(kl: Scores, gain: Scores, form: Form) -> dict[str, Any]:
    """Return a fit; all its numbers are null where too few checkpoints have a KL above 0."""
    try:
        return dict(gao_fit(kl, gain, form=form)._asdict())
    except DataError:
        return dict.fromkeys(GaoFit._fields) | {"form": form}


def mean_curve(curves: Sequence[OptimizationCurve]) -> list[dict[str, Any]]:
    """Return mean gains over seeds at evenly spaced root KLs, with Student's t intervals.

    The curve of each seed is interpolated in root KL. A point that only some seeds reached is the
    mean of these; with fewer than `_SEEDS_FOR_AN_INTERVAL` it has no interval.
    """
    farthest = max(float(curve.kl.max()) for curve in curves)
    rows = []
    for root in np.linspace(0, np.sqrt(farthest), _GRID):
        row: dict[str, Any] = {"root_kl": float(root), "kl": float(root**2)}
        for score in ("gold", "proxy"):
            gains = [
                0.0 if root == 0 else at_kl(c.kl, c.gain(score), float(root**2)) for c in curves
            ]
            values = [value for value in gains if value is not None]
            if not values:
                continue
            mean, low, high = band(values, CONFIDENCE)
            row |= {score: mean, f"{score}_seeds": len(values)}
            if len(values) >= _SEEDS_FOR_AN_INTERVAL:
                row |= {f"{score}_low": low, f"{score}_high": high}
        if "gold" in row:
            rows.append(row)
    return rows


def fitted_curve(fit: Mapping[str, Any], farthest: float) -> list[dict[str, float]]:
    """Return a fit as points to draw, up to a KL."""
    if fit["alpha"] is None:
        return []
    roots = np.linspace(0, np.sqrt(farthest), 60)
    slope = fit["alpha"] - fit["beta"] * (
        np.log(np.maximum(roots, 1e-12)) if fit["form"] == "rl" else roots
    )
    return [
        {"root_kl": float(root), "gold": float(root * a)}
        for root, a in zip(roots, slope, strict=True)
    ]


def best_of_n_summary(results: Sequence[BestOf]) -> dict[str, Any]:
    """Return best of n over several reward models: means, and the fit of gold."""
    kl = results[0].kl
    gold = np.stack([result.judging - result.judging[0] for result in results])
    proxy = np.stack([result.ranking - result.ranking[0] for result in results])
    return {
        "points": [
            {
                "n": size,
                "kl": float(kl[number]),
                "root_kl": float(np.sqrt(kl[number])),
                "gold": float(gold[:, number].mean()),
                "gold_low": float(gold[:, number].min()),
                "gold_high": float(gold[:, number].max()),
                "proxy": float(proxy[:, number].mean()),
            }
            for number, size in enumerate(results[0].sizes)
        ],
        "models": len(results),
        "fit": _fit(np.tile(kl, len(results)), gold.ravel(), "bon"),
    }
