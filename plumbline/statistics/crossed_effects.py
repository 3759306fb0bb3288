"""Differences between methods where both prompts and training seeds are samples.

The model, for method m, training seed s and prompt p, is

    y = mean_m + prompt_p + (method x prompt)_mp + seed_ms + rest_msp

with every term random except the mean. All methods share the prompts, so they are paired by
prompt. Each seed belongs to one method, and each seed responds to every prompt, so seeds and
prompts are crossed. ``S`` is the number of seeds of one method, ``P`` the number of prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from plumbline.errors import DataError

Floats = NDArray[np.float64]

#: Rounding error of sums of numbers of size 1.
_ROUNDING = 1e-13


class Contrast(NamedTuple):
    """A difference with its standard error, interval and two-sided p-value.

    ``seeds``: the number of training seeds on each side. With 1, nothing is known about other
    seeds: that side is treated as one fixed policy, and interval and p-value cover other prompts
    only. ``seed_se``: the part of the standard error that comes from training seeds (0 where seeds
    differ no more than single prompts explain); None where no side has two seeds. ``df``: degrees
    of freedom of the single t quantile that, times ``se``, gives the half-width.
    """

    difference: float
    se: float
    df: float
    low: float
    high: float
    p_value: float
    seed_se: float | None
    seeds: tuple[int, ...]


class MeanVariance(NamedTuple):
    """The variance of a mean in two parts (prompts and seeds), each with its degrees of freedom.

    ``seeds`` is None where no side has two training seeds. The parts are arrays for several means
    at once.
    """

    prompts: Any
    prompts_df: int
    seeds: Any
    seeds_df: Any

    @property
    def se(self) -> Any:
        """The standard error."""
        return np.sqrt(self.prompts + (0.0 if self.seeds is None else self.seeds))

    @property
    def seed_se(self) -> float | None:
        """The part of the standard error that comes from seeds."""
        return None if self.seeds is None else math.sqrt(float(self.seeds))

    def half_width(self, confidence: float) -> Any:
        """Return half the width of an interval: the root of the sum over parts of (t · se)²."""
        return self._reach((1 - confidence) / 2)

    def _reach(self, tail: float) -> Any:
        squares = special.stdtrit(self.prompts_df, tail) ** 2 * self.prompts
        if self.seeds is not None:
            squares = squares + special.stdtrit(self.seeds_df, tail) ** 2 * self.seeds
        return np.sqrt(squares)

    def p_value(self, distance: float) -> float:
        """Return the p-value of a distance from the null: 1 - confidence of the interval to it."""
        if float(self.se) == 0:
            return 1.0 if distance == 0 else 0.0
        target, smallest = abs(distance), 1e-30
        if self._reach(smallest / 2) <= target:
            return 0.0
        log_p = optimize.brentq(
            lambda log: float(self._reach(math.exp(log) / 2)) - target, math.log(smallest), 0.0
        )
        return min(1.0, math.exp(float(log_p)))

    def df(self, confidence: float) -> float:
        """Return the degrees of freedom of the single t quantile with the same half-width."""
        if self.seeds is None or float(self.seeds) == 0:
            return float(self.prompts_df)
        tail = (1 - confidence) / 2
        ratio = float(self.half_width(confidence)) / float(self.se)
        low, high = sorted((float(self.prompts_df), float(self.seeds_df)))
        edges = [float(-special.stdtrit(df, tail)) for df in (low, high)]
        if not edges[1] < ratio < edges[0]:
            return low if ratio >= edges[0] else high
        df = optimize.brentq(lambda df: float(-special.stdtrit(df, tail)) - ratio, low, high)
        return float(df)


def score_matrix(values: ArrayLike, name: str = "scores") -> Floats:
    """Return values as an array [S, P]; raise `DataError` that says what is wrong with them."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise DataError(
            f"{name} have {array.ndim} dimensions; give one row per training seed and one column "
            "per prompt, also for a single seed."
        )
    if array.shape[0] < 1 or array.shape[1] < 2:
        raise DataError(
            f"{name} have {array.shape[0]} seeds and {array.shape[1]} prompts; an interval needs "
            "at least one seed and two prompts."
        )
    non_finite = np.argwhere(~np.isfinite(array))
    if len(non_finite):
        seed, prompt = non_finite[0]
        raise DataError(
            f"{name} hold {len(non_finite)} values that are not finite numbers, the first for seed "
            f"{seed}, prompt {prompt}. A mean over the others would compare different prompts: "
            "remove these prompts for every method, or find out why they have no score."
        )
    return array


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1)."""
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence}; it must lie between 0 and 1, such as 0.95.")


def paired_score_matrices(scores_a: ArrayLike, scores_b: ArrayLike) -> tuple[Floats, Floats]:
    """Return the scores of two methods as arrays [S_a, P] and [S_b, P] over the same prompts."""
    a, b = score_matrix(scores_a, "scores of A"), score_matrix(scores_b, "scores of B")
    if a.shape[1] != b.shape[1]:
        raise DataError(
            f"one method was judged on {a.shape[1]} prompts and the other on "
            f"{b.shape[1]}; a paired comparison needs the same prompts in the same order. "
            "Keep the prompts that both have."
        )
    return a, b


def drop_rounding_noise(values: Any, scale: float) -> Any:
    """Return values with those set to 0 that rounding alone can explain at this scale.

    Otherwise scores that are equal up to the order of a sum would differ "significantly".
    """
    return np.where(np.abs(values) <= _ROUNDING * scale, 0.0, values)


def variance_of_mean(by_prompt: Floats, by_seed: Sequence[Floats]) -> MeanVariance:
    """Return the variance of a mean, with prompts and the seeds of each method as random effects.

    ``by_prompt`` [P, ...]: what each prompt adds to the mean, averaged over seeds. ``by_seed``: one
    array [S, P, ...] per method, what each of its seeds adds on each prompt. Trailing dimensions
    are several means at once. A method with one seed adds no seed part.

    Variance components by the method of moments. The prompt part is the variance over prompts
    divided by P; it contains the seed x prompt residual. The seed part of a method is the variance
    of the means of its seeds divided by S, minus its share of the residual (the two-way residual
    mean square divided by S P), so that the residual is counted once. The sum of the seed parts is
    at least 0; its degrees of freedom are Welch's (1947) for the means of the seeds. Each part
    takes its own t quantile (Howe, "Approximate confidence limits on the mean of X + Y", 1974). A
    single quantile for the sum, by Satterthwaite, covers too rarely where few seeds weigh as much
    as many prompts (docs/statistics.md).
    """
    prompts = by_prompt.shape[0]
    scale = max(float(np.abs(values).max()) for values in (by_prompt, *by_seed))
    prompt_part = drop_rounding_noise(by_prompt.std(axis=0, ddof=1), scale) ** 2 / prompts
    seed_variances, residual_variances, seed_dfs = [], [], []
    for values in by_seed:
        seeds = values.shape[0]
        if seeds < 2:
            continue
        rows = values.mean(axis=1, keepdims=True)
        columns = values.mean(axis=0, keepdims=True)
        residual = values - rows - columns + rows.mean(axis=0, keepdims=True)
        residual_mean_square = (residual**2).sum(axis=(0, 1)) / ((seeds - 1) * (prompts - 1))
        seed_variances.append(rows[:, 0].var(axis=0, ddof=1) / seeds)
        residual_variances.append(residual_mean_square / (seeds * prompts))
        seed_dfs.append(seeds - 1)
    if not seed_variances:
        return MeanVariance(prompt_part, prompts - 1, None, None)
    total = sum(seed_variances)
    welch_denominator = sum(
        part**2 / freedom for part, freedom in zip(seed_variances, seed_dfs, strict=True)
    )
    is_positive = np.asarray(welch_denominator) > 0
    df = np.where(
        is_positive, total**2 / np.where(is_positive, welch_denominator, 1.0), float(sum(seed_dfs))
    )
    seed_part = np.maximum(total - sum(residual_variances), 0.0)
    seed_part = np.where(
        seed_part <= _ROUNDING * total, 0.0, drop_rounding_noise(np.sqrt(seed_part), scale) ** 2
    )
    return MeanVariance(prompt_part, prompts - 1, seed_part, df)


def _inference(
    mean: float, variance: MeanVariance, confidence: float, seeds: tuple[int, ...]
) -> Contrast:
    """Put an interval around a mean."""
    half = float(variance.half_width(confidence))
    return Contrast(
        mean,
        float(variance.se),
        variance.df(confidence),
        mean - half,
        mean + half,
        variance.p_value(mean),
        variance.seed_se,
        seeds,
    )


def contrast(scores_a: ArrayLike, scores_b: ArrayLike, confidence: float = 0.95) -> Contrast:
    """Return the mean of A minus that of B, paired by prompt, with seeds as a random effect.

    ``scores_a`` [S_a, P] and ``scores_b`` [S_b, P] are scores on the same prompts in the same
    order. The seeds of the two methods are independent and may differ in number. With one seed per
    side this is the paired t-test; where only seeds differ it is Welch's t-test between seeds.
    """
    check_confidence(confidence)
    a, b = paired_score_matrices(scores_a, scores_b)
    scale = max(float(np.abs(a).max()), float(np.abs(b).max()))
    per_prompt = drop_rounding_noise(a.mean(axis=0) - b.mean(axis=0), scale)
    return _inference(
        float(per_prompt.mean()),
        variance_of_mean(per_prompt, [a, b]),
        confidence,
        (len(a), len(b)),
    )


def mean_interval(values: ArrayLike, null: float = 0.0, confidence: float = 0.95) -> Contrast:
    """Return the mean of values [S, P] minus ``null``, over prompts and the seeds of one method."""
    check_confidence(confidence)
    array = score_matrix(values) - null
    per_prompt = array.mean(axis=0)
    return _inference(
        float(per_prompt.mean()), variance_of_mean(per_prompt, [array]), confidence, (len(array),)
    )
