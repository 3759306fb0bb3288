"""Differences between methods where both prompts and training seeds are samples.

The model, for method m, training seed s and prompt p, is

    y = mean_m + prompt_p + (method x prompt)_mp + seed_ms + rest_msp

with every term but the mean random. Prompts are shared by all methods (so they are paired),
seeds belong to one method each, and a method's seeds all answer every prompt (so seeds and
prompts are crossed). ``S`` is the number of a method's seeds and ``P`` that of prompts.
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

#: What sums of numbers of size 1 may be off by.
_ROUNDING = 1e-13


class Contrast(NamedTuple):
    """A difference with its standard error, interval and two-sided p-value.

    ``seeds`` is how many training seeds stood on each side. Where that is 1, nothing is known of
    how far another seed would have differed: that side's policy is taken as given, and interval
    and p-value speak of other prompts only. ``seed_error`` is the part of the error that is due
    to training seeds (0 where they differ no more than their answers to single prompts explain),
    None where no side has two. ``df`` are the degrees of freedom of the one t quantile that, times
    ``error``, gives the half-width.
    """

    difference: float
    error: float
    df: float
    low: float
    high: float
    p_value: float
    seed_error: float | None
    seeds: tuple[int, ...]


class Spread(NamedTuple):
    """The variance of a mean in its two parts, each with its degrees of freedom.

    ``seeds`` is None where no side has two training seeds. Parts are arrays where there are
    several means at once.
    """

    prompts: Any
    prompts_df: int
    seeds: Any
    seeds_df: Any

    @property
    def error(self) -> Any:
        """The standard error."""
        return np.sqrt(self.prompts + (0.0 if self.seeds is None else self.seeds))

    @property
    def seed_error(self) -> float | None:
        """The standard error that seeds alone make."""
        return None if self.seeds is None else math.sqrt(float(self.seeds))

    def half_width(self, confidence: float) -> Any:
        """Return half the width of an interval: each part's own t quantile, squares added."""
        return self._reach((1 - confidence) / 2)

    def _reach(self, tail: float) -> Any:
        squares = special.stdtrit(self.prompts_df, tail) ** 2 * self.prompts
        if self.seeds is not None:
            squares = squares + special.stdtrit(self.seeds_df, tail) ** 2 * self.seeds
        return np.sqrt(squares)

    def p_value(self, distance: float) -> float:
        """Return the p-value of a distance from the null: where an interval just reaches it."""
        if float(self.error) == 0:
            return 1.0 if distance == 0 else 0.0
        aim, least = abs(distance), 1e-30
        if self._reach(least / 2) <= aim:
            return 0.0
        found = optimize.brentq(
            lambda log: float(self._reach(math.exp(log) / 2)) - aim, math.log(least), 0.0
        )
        return min(1.0, math.exp(float(found)))

    def df(self, confidence: float) -> float:
        """Return the degrees of freedom of the one t quantile that gives the same half-width."""
        if self.seeds is None or float(self.seeds) == 0:
            return float(self.prompts_df)
        tail = (1 - confidence) / 2
        ratio = float(self.half_width(confidence)) / float(self.error)
        low, high = sorted((float(self.prompts_df), float(self.seeds_df)))
        edges = [float(-special.stdtrit(df, tail)) for df in (low, high)]
        if not edges[1] < ratio < edges[0]:
            return low if ratio >= edges[0] else high
        found = optimize.brentq(lambda df: float(-special.stdtrit(df, tail)) - ratio, low, high)
        return float(found)


def checked(values: ArrayLike, name: str = "scores") -> Floats:
    """Return values as an array (S, P), or say what is wrong with them."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise DataError(
            f"{name} have {array.ndim} dimensions; give one row a training seed and one column "
            "a prompt, also where there is only one seed."
        )
    if array.shape[0] < 1 or array.shape[1] < 2:
        raise DataError(
            f"{name} have {array.shape[0]} seeds and {array.shape[1]} prompts; an interval needs "
            "a seed and two prompts at least."
        )
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        seed, prompt = bad[0]
        raise DataError(
            f"{name} hold {len(bad)} values that are not finite numbers, the first for seed "
            f"{seed}, prompt {prompt}. A mean over the rest would compare different prompts: "
            "leave these prompts out for every method, or find out why they have no score."
        )
    return array


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1)."""
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence}; it must lie between 0 and 1, such as 0.95.")


def checked_pair(ours: ArrayLike, theirs: ArrayLike) -> tuple[Floats, Floats]:
    """Return two methods' scores as arrays (S, P) over the same prompts."""
    mine, other = checked(ours, "our scores"), checked(theirs, "their scores")
    if mine.shape[1] != other.shape[1]:
        raise DataError(
            f"one method was judged on {mine.shape[1]} prompts and the other on "
            f"{other.shape[1]}; a paired comparison needs the same prompts in the same order. "
            "Keep the prompts that both have."
        )
    return mine, other


def unrounded(values: Any, scale: float) -> Any:
    """Return values with those that rounding alone can have made, on this scale, set to 0.

    Without this, scores that are equal up to the order of a sum would differ "significantly".
    """
    return np.where(np.abs(values) <= _ROUNDING * scale, 0.0, values)


def spread(by_prompt: Floats, by_seed: Sequence[Floats]) -> Spread:
    """Return the variance of a mean, with prompts and every method's seeds as random effects.

    ``by_prompt`` (P, ...) is what each prompt adds to the mean, averaged over seeds; each array of
    ``by_seed`` (S, P, ...) is what each of one method's seeds adds on each prompt. Trailing
    dimensions are so many means at once. Methods with one seed add no seed part.

    Variance components by the method of moments. The prompts' part is the variance over prompts
    divided by P; the seed x prompt rest is in it. A method's seeds' part is the variance over its
    seeds' means divided by S, less its share of the rest (the two-way residual mean square divided
    by S P), so that the rest is counted once. Their sum cannot fall below 0; its degrees of
    freedom are Welch's (1947) for the seeds' means. Each part then takes its own t quantile
    (Howe, "Approximate confidence limits on the mean of X + Y", 1974): one quantile for the sum,
    by Satterthwaite, covers too seldom where few seeds weigh as much as many prompts do
    (docs/statistics.md).
    """
    prompts = by_prompt.shape[0]
    scale = max(float(np.abs(values).max()) for values in (by_prompt, *by_seed))
    variance = unrounded(by_prompt.std(axis=0, ddof=1), scale) ** 2 / prompts
    seen, rests, freedoms = [], [], []
    for values in by_seed:
        seeds = values.shape[0]
        if seeds < 2:
            continue
        rows = values.mean(axis=1, keepdims=True)
        columns = values.mean(axis=0, keepdims=True)
        rest = values - rows - columns + rows.mean(axis=0, keepdims=True)
        rest_square = (rest**2).sum(axis=(0, 1)) / ((seeds - 1) * (prompts - 1))
        seen.append(rows[:, 0].var(axis=0, ddof=1) / seeds)
        rests.append(rest_square / (seeds * prompts))
        freedoms.append(seeds - 1)
    if not seen:
        return Spread(variance, prompts - 1, None, None)
    whole = sum(seen)
    welch = sum(part**2 / freedom for part, freedom in zip(seen, freedoms, strict=True))
    some = np.asarray(welch) > 0
    df = np.where(some, whole**2 / np.where(some, welch, 1.0), float(sum(freedoms)))
    kept = np.maximum(whole - sum(rests), 0.0)
    kept = np.where(kept <= _ROUNDING * whole, 0.0, unrounded(np.sqrt(kept), scale) ** 2)
    return Spread(variance, prompts - 1, kept, df)


def _inference(mean: float, found: Spread, confidence: float, seeds: tuple[int, ...]) -> Contrast:
    """Put an interval around a mean."""
    half = float(found.half_width(confidence))
    return Contrast(
        mean,
        float(found.error),
        found.df(confidence),
        mean - half,
        mean + half,
        found.p_value(mean),
        found.seed_error,
        seeds,
    )


def contrast(ours: ArrayLike, theirs: ArrayLike, confidence: float = 0.95) -> Contrast:
    """Return our mean minus theirs, paired by prompt, with training seeds as a random effect.

    ``ours`` (S_a, P) and ``theirs`` (S_b, P) are scores on the same prompts in the same order;
    the methods' seeds are independent of each other and may differ in number. With one seed on
    both sides this is the paired t-test; where seeds differ by a constant and prompts do not
    matter it is Welch's t-test between seeds.
    """
    check_confidence(confidence)
    mine, other = checked_pair(ours, theirs)
    scale = max(float(np.abs(mine).max()), float(np.abs(other).max()))
    per_prompt = unrounded(mine.mean(axis=0) - other.mean(axis=0), scale)
    return _inference(
        float(per_prompt.mean()),
        spread(per_prompt, [mine, other]),
        confidence,
        (len(mine), len(other)),
    )


def level(values: ArrayLike, null: float = 0.0, confidence: float = 0.95) -> Contrast:
    """Return the mean of values (S, P) minus ``null``, over prompts and one method's seeds."""
    check_confidence(confidence)
    array = checked(values) - null
    per_prompt = array.mean(axis=0)
    return _inference(
        float(per_prompt.mean()), spread(per_prompt, [array]), confidence, (len(array),)
    )
