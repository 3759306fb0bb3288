"""Biases: what a score pays for beyond what the labels do, within pairs.

A trait (length, say) may go with quality, so a score that rises with it is not biased for that.
Three effects are kept apart, each within pairs and, for every trait but length itself, at equal
length:

- *of the score*: how the difference of scores rises with the difference of the trait (least
  squares);
- *of the labels*: how the log odds of being chosen rise with it;
- *beyond the labels*: in a logistic regression of the labels on the score and the trait,
  log odds = a score + b trait, the labels are blind to -b / a of what the score pays per unit. For
  a score that is the labels' own utility plus an effect of the trait, this is that effect exactly,
  however much noise the labels have (Bradley-Terry).

A bias is found where the score's own effect and the effect beyond the labels have one sign and
both differ from 0, after Holm's correction over the traits. For a model without a bias this
happens in at most 5 % of audits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from plumbline.statistics import holm
from plumbline.statistics.crossed_effects import Floats
from reward.audit.regression import Coefficients, linear, logistic
from reward.audit.shares import CONFIDENCE, Share, difference_of, pair_points, share_of
from reward.audit.traits import LENGTH

#: With fewer pairs that differ in a trait, nothing is said about it.
FEWEST_PAIRS = 20
#: A bias of less, in standard deviations of the score per unit, is noted and not held against it.
NEGLIGIBLE = 0.05


class Effect(NamedTuple):
    """An effect with its interval."""

    value: float
    low: float
    high: float
    p_value: float


class Bias(NamedTuple):
    """What a score and the labels make of a trait."""

    trait: str
    pairs: int
    """Pairs whose responses differ in it."""
    of_score: Effect | None
    """Standard deviations of the score per unit of the trait."""
    of_labels: Effect | None
    """Log odds of being chosen per unit."""
    beyond_labels: Effect | None
    """Standard deviations of the score per unit that the labels do not pay."""
    p_value: float
    """That there is no bias, after the correction over all traits."""
    is_found: bool


def find_biases(
    margins: ArrayLike, differences: Mapping[str, ArrayLike], alpha: float = 0.05
) -> list[Bias]:
    """Return what is found for each trait, in the order given.

    Args:
        margins: score of the chosen response less that of the rejected one, in standard deviations
            of the score, [N].
        differences: trait to its difference, chosen less rejected, [N]. Other traits are measured
            at equal `LENGTH`, where that is among them.
        alpha: the chance that a model without any bias is accused of one.
    """
    m = np.asarray(margins, dtype=np.float64)
    columns = {name: np.asarray(d, dtype=np.float64) for name, d in differences.items()}
    measured = {name: _measure(m, column, columns, name) for name, column in columns.items()}
    p_values = [_joint_p(*effects) for effects in measured.values()]
    biases = []
    for (name, effects), p_value in zip(
        measured.items(), holm(p_values) if p_values else [], strict=True
    ):
        of_score, of_labels, beyond = effects
        is_found = p_value < alpha and beyond is not None and abs(beyond.value) >= NEGLIGIBLE
        pairs = int(np.count_nonzero(columns[name]))
        biases.append(Bias(name, pairs, of_score, of_labels, beyond, p_value, is_found))
    return biases


def _measure(
    m: Floats, column: Floats, columns: Mapping[str, Floats], name: str
) -> tuple[Effect | None, Effect | None, Effect | None]:
    if np.count_nonzero(column) < FEWEST_PAIRS:
        return None, None, None
    control = [] if name == LENGTH or LENGTH not in columns else [columns[LENGTH]]
    traits = np.column_stack([column, *control])
    scores, labels = linear(traits, m), logistic(traits)
    both = logistic(np.column_stack([m, traits]))
    return (
        None if scores is None else _effect(scores, 0),
        None if labels is None else _effect(labels, 0),
        None if both is None else _ratio(both),
    )


def _effect(fit: Coefficients, place: int) -> Effect:
    value, error = float(fit.values[place]), float(np.sqrt(fit.covariance[place, place]))
    half = _z() * error
    return Effect(value, value - half, value + half, fit.p_value(place))


def _ratio(fit: Coefficients) -> Effect | None:
    """Return -b / a with its interval (delta method), and the p-value of b.

    None where the labels do not rise with the score: then there is no unit for it.
    """
    a, b = (float(value) for value in fit.values[:2])
    if a <= 0 or fit.p_value(0) > 0.05:
        return None
    slope = np.array([b / a**2, -1 / a])
    half = _z() * float(np.sqrt(slope @ fit.covariance[:2, :2] @ slope))
    return Effect(-b / a, -b / a - half, -b / a + half, fit.p_value(1))


def _joint_p(of_score: Effect | None, _: Effect | None, beyond: Effect | None) -> float:
    """Return the p-value that a trait has no bias: both effects must be there, with one sign."""
    if of_score is None or beyond is None or of_score.value * beyond.value <= 0:
        return 1.0
    return max(of_score.p_value, beyond.p_value)


def _z() -> float:
    return float(stats.norm.ppf(0.5 + CONFIDENCE / 2))


class ByLength(NamedTuple):
    """Accuracy where the longer response is the better, where it is the worse, and the gap."""

    longer_is_better: Share | None
    longer_is_worse: Share | None
    gap: Share | None


def accuracy_by_length(margins: Sequence[float], length: Sequence[float]) -> ByLength:
    """Return the accuracy by whether the chosen response is the longer; ``length`` is its lead."""
    points = pair_points(margins)
    better = [p for p, lead in zip(points, length, strict=True) if lead > 0]
    worse = [p for p, lead in zip(points, length, strict=True) if lead < 0]
    shares = [share_of(group) if group else None for group in (better, worse)]
    gap = None
    if shares[0] is not None and shares[1] is not None:
        gap = difference_of(shares[0], shares[1])
    return ByLength(shares[0], shares[1], gap)


class OrderEffect(NamedTuple):
    """How much the place of a response moved the labels."""

    first_share: Share
    log_odds: Effect | None
    """Of the response that was shown first being chosen, at equal score."""


def order_effect(margins: ArrayLike, first_chosen: Sequence[bool]) -> OrderEffect | None:
    """Return the effect of being shown first on the labels; None where too few say the order.

    ``margins`` [N]: chosen less rejected score. ``first_chosen`` [N]: whether the chosen response
    was shown first. P(first is chosen) = sigma(a (its score - the other's) + order effect).
    """
    if len(first_chosen) < FEWEST_PAIRS:
        return None
    place = np.where(np.asarray(first_chosen), 1.0, -1.0)
    share = share_of([float(chosen) for chosen in first_chosen])
    fit = logistic(np.column_stack([place, np.asarray(margins, dtype=np.float64)]))
    return OrderEffect(share, None if fit is None else _effect(fit, 0))
