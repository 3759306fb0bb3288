"""Win rates with the effect of length taken out, by the model of AlpacaEval 2.

Dubois et al., "Length-controlled AlpacaEval: a simple way to debias automatic evaluators" (2024):
the log odds that our answer to prompt x is preferred are

    θ + φ tanh(Δ / sd(Δ)) + ψ γ_x,    Δ = our length - theirs,

with the prompt's difficulty γ_x fitted over all methods beforehand. The length-controlled win
rate is what the model says at Δ = 0, averaged over prompts. Swapping the sides turns the rate w
into 1 - w.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from evaluation.statistics.crossed import Floats, check_confidence, spread
from evaluation.statistics.wins import of_a_share
from plumbline.errors import DataError

#: Half a win and half a loss, and as much evidence against any slope as one comparison gives.
#: Keeps the fit finite where one side almost always wins, and vanishes among many comparisons.
_PRIOR = 1.0
#: Standard deviation of difficulties (log odds) before anything is seen.
_DIFFICULTY = 2.0


class LengthControlled(NamedTuple):
    """A length-controlled win rate with its interval.

    ``coefficient`` is φ: the log odds that a much longer answer gains. ``raw`` is the win rate as
    it was. ``p_value`` is against 1/2.
    """

    win_rate: float
    error: float
    low: float
    high: float
    coefficient: float
    raw: float
    df: float
    p_value: float


def length_controlled(
    points: ArrayLike,
    lengths: ArrayLike,
    other_lengths: ArrayLike,
    difficulty: ArrayLike | None = None,
    confidence: float = 0.95,
) -> LengthControlled:
    """Return the win rate that equal lengths would have brought.

    ``points`` (S_a, S_b, P) as ``head_to_head`` returns them (or (S_a, P) against one policy) are
    1, 1/2 or 0, or anything between; ``lengths`` (S_a, P) and ``other_lengths`` (S_b, P) (or
    (P,)) are the answers' lengths in whatever unit. ``difficulty`` (P,) are log odds
    (``instruction_difficulty``); without them the model has no such term, which matters where
    length and difficulty go together.

    The standard error takes prompts and seeds of both sides as random: each comparison's influence
    on the result (linearised) goes through the same variance components as a plain win rate.
    Where everything was won, or lost, length explains nothing, and the result is that of
    ``win_rate``. Length is taken out as far as preference follows it in this shape; where longer
    answers are better answers, that is taken out, too.
    """
    check_confidence(confidence)
    won, difference = _comparisons(points, lengths, other_lengths)
    _, _, prompts = won.shape
    hardness = _difficulty(difficulty, prompts)
    raw = float(won.mean())
    seeds = (won.shape[0], won.shape[1])
    if raw in (0.0, 1.0):
        nothing = spread(won.mean(axis=(0, 1)), [won.mean(axis=1), won.mean(axis=0)])
        plain = of_a_share(raw, nothing, prompts, confidence, seeds)
        return LengthControlled(raw, 0.0, plain.low, plain.high, 0.0, raw, plain.df, plain.p_value)
    columns = [np.ones(won.size), _standardized(difference).ravel()]
    if hardness is not None:
        columns.append(np.broadcast_to(hardness, won.shape).ravel())
    design = np.column_stack(columns)
    weights, information = _fit(design, won.ravel())
    # What the model says at equal length, prompt by prompt, and how that moves with the weights.
    level = design[:prompts].copy()
    level[:, 1] = 0.0
    at_equal = special.expit(level @ weights)
    rate = float(at_equal.mean())
    gradient = ((at_equal * (1 - at_equal))[:, None] * level).mean(axis=0)
    residual = won.ravel() - special.expit(design @ weights)
    moves = won.size * (design @ np.linalg.solve(information, gradient)) * residual
    influence = moves.reshape(won.shape) + at_equal
    found = spread(influence.mean(axis=(0, 1)), [influence.mean(axis=1), influence.mean(axis=0)])
    share = of_a_share(rate, found, prompts, confidence, seeds)
    return LengthControlled(
        rate, share.error, share.low, share.high, float(weights[1]), raw, share.df, share.p_value
    )


def instruction_difficulty(
    points: ArrayLike, lengths: ArrayLike, other_lengths: ArrayLike
) -> Floats:
    """Return each prompt's difficulty γ (P,) in log odds, with mean 0; high where we tend to win.

    ``points`` (M, P) are M methods' (or seeds') points against the same other answers, ``lengths``
    (M, P) and ``other_lengths`` (P,) those answers' lengths. One logistic regression over all: a
    level and a length slope for each method and one γ for each prompt, with ψ = 1 for all and γ
    drawn towards 0 as from a normal distribution with a standard deviation of 2.
    """
    won, ours = np.asarray(points, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    if won.ndim != 2 or won.shape != ours.shape:
        raise DataError(
            f"points have shape {won.shape} and lengths {ours.shape}; give both one row a method "
            "and one column a prompt."
        )
    methods, prompts = won.shape
    comparisons = [
        _comparisons(won[m : m + 1], ours[m : m + 1], other_lengths) for m in range(methods)
    ]
    terms = np.stack([_standardized(difference)[0, 0] for _, difference in comparisons])

    def loss(weights: Floats) -> tuple[float, Floats]:
        """Return the penalised negative log likelihood and its gradient."""
        levels, slopes, hardness = np.split(weights, [methods, 2 * methods])
        odds = levels[:, None] + slopes[:, None] * terms + hardness
        off = special.expit(odds) - won
        gradient = [off.sum(axis=1), (off * terms).sum(axis=1), off.sum(axis=0)]
        value = -_log_likelihood(odds, won) + 0.5 * float(penalty @ weights**2)
        return value, np.concatenate(gradient) + penalty * weights

    penalty = np.full(2 * methods + prompts, _PRIOR / 4)
    penalty[2 * methods :] = _DIFFICULTY**-2
    found = optimize.minimize(
        loss,
        np.zeros_like(penalty),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-14, "gtol": 1e-8},
    )
    hardness = np.asarray(found.x[2 * methods :], dtype=np.float64)
    centered: Floats = hardness - hardness.mean()
    return centered


def _comparisons(
    points: ArrayLike, lengths: ArrayLike, other_lengths: ArrayLike
) -> tuple[Floats, Floats]:
    """Return points and length differences, both (S_a, S_b, P)."""
    won = np.asarray(points, dtype=np.float64)
    if won.ndim == 2:
        won = won[:, None]
    ours, theirs = (np.asarray(x, dtype=np.float64) for x in (lengths, other_lengths))
    if theirs.ndim == 1:
        theirs = theirs[None]
    if won.ndim != 3 or ours.ndim != 2 or (len(ours), len(theirs)) != won.shape[:2]:
        raise DataError(
            f"points have shape {won.shape}, our lengths {ours.shape} and theirs {theirs.shape}; "
            "points are (our seeds, their seeds, prompts), lengths (seeds, prompts)."
        )
    if not ours.shape[1] == theirs.shape[1] == won.shape[2]:
        raise DataError(
            f"there are points for {won.shape[2]} prompts, our lengths for {ours.shape[1]} and "
            f"theirs for {theirs.shape[1]}; give the same prompts in the same order."
        )
    if won.shape[2] < 2:
        raise DataError("a length-controlled win rate needs two prompts at least.")
    if not ((won >= 0) & (won <= 1)).all():
        raise DataError("points must lie between 0 (lost) and 1 (won), without gaps.")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise DataError("every answer needs a length; some are not finite numbers.")
    return won, ours[:, None] - theirs[None]


def _standardized(difference: Floats) -> Floats:
    """Return tanh of the differences over their standard deviation; 0 where all are equal.

    The mean stays in, as in the paper: 0 must mean equal lengths.
    """
    deviation = float(difference.std())
    if deviation <= 1e-12 * float(np.abs(difference).max()):
        # One constant difference cannot be told from a better method. Nothing is taken out.
        return np.zeros_like(difference)
    scaled: Floats = np.tanh(difference / deviation)
    return scaled


def _difficulty(difficulty: ArrayLike | None, prompts: int) -> Floats | None:
    if difficulty is None:
        return None
    hardness = np.asarray(difficulty, dtype=np.float64)
    if hardness.shape != (prompts,) or not np.isfinite(hardness).all():
        raise DataError(
            f"difficulty has shape {hardness.shape}; give one finite number for each of the "
            f"{prompts} prompts."
        )
    return hardness


def _fit(design: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Return the weights of a logistic regression and their information matrix."""
    tie = np.zeros((1, design.shape[1]))
    tie[0, 0] = 1.0
    rows = np.concatenate([design, tie])
    # A tie at equal length on a prompt of middling difficulty, and a quarter against each slope:
    # the information of one comparison at even odds.
    penalty = np.full(design.shape[1], _PRIOR / 4)
    penalty[0] = 0.0
    return _maximum(rows, np.append(points, 0.5), penalty)


def _maximum(design: Floats, points: Floats, penalty: Floats) -> tuple[Floats, Floats]:
    """Maximise the logistic likelihood less half the penalised squares; return weights, Hessian.

    Newton's method, with the step halved until it does not lower the value.
    """
    weights, value = np.zeros(design.shape[1]), -math.inf
    for _ in range(200):
        chance = special.expit(design @ weights)
        information = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(information, design.T @ (points - chance) - penalty * weights)
        for _ in range(40):
            found = _log_likelihood(design @ (weights + step), points)
            found -= 0.5 * float(penalty @ (weights + step) ** 2)
            if found >= value or float(np.abs(step).max()) < 1e-10:
                break
            step = step / 2
        if float(np.abs(step).max()) < 1e-10:
            break
        weights, value = weights + step, found
    return weights, information


def _log_likelihood(odds: Floats, points: Floats) -> float:
    """Return the log likelihood of points (possibly between 0 and 1) at these log odds."""
    return float((points * odds - np.logaddexp(0.0, odds)).sum())
