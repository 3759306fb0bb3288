"""Length-controlled win rates, by the model of AlpacaEval 2.

Dubois et al., "Length-controlled AlpacaEval: a simple way to debias automatic evaluators" (2024):
the log odds that A's response to prompt x is preferred to B's are

    θ + φ tanh(Δ / sd(Δ)) + ψ γ_x,    Δ = length of A's response - length of B's,

with the difficulty γ_x of the prompt fitted over all methods beforehand. The length-controlled win
rate is the model's prediction at Δ = 0, averaged over prompts. Swapping A and B turns the rate w
into 1 - w.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from plumbline.errors import DataError
from plumbline.statistics.crossed_effects import Floats, check_confidence, variance_of_mean
from plumbline.statistics.win_rates import share_interval

#: Half a win and half a loss, and as much evidence against a slope as one comparison gives. It
#: keeps the fit finite where one side almost always wins, and has no weight among many comparisons.
_PRIOR = 1.0
#: Prior standard deviation of difficulties, in log odds.
_DIFFICULTY = 2.0


class LengthControlled(NamedTuple):
    """A length-controlled win rate with its interval.

    ``coefficient`` is φ: the log odds that a much longer response gains. ``raw`` is the win rate
    without length control. ``p_value`` is against 1/2.
    """

    win_rate: float
    se: float
    low: float
    high: float
    coefficient: float
    raw: float
    df: float
    p_value: float


def length_controlled(
    win_scores: ArrayLike,
    lengths: ArrayLike,
    other_lengths: ArrayLike,
    difficulty: ArrayLike | None = None,
    confidence: float = 0.95,
) -> LengthControlled:
    """Return the win rate that the model predicts for responses of equal length.

    ``win_scores`` [S_a, S_b, P] as ``head_to_head`` returns them, or [S_a, P] against one policy:
    1, 1/2 or 0, or any value between. ``lengths`` [S_a, P] and ``other_lengths`` [S_b, P] (or [P])
    are the lengths of the responses in any unit. ``difficulty`` [P] are log odds
    (``instruction_difficulty``). Without them the model has no such term, which matters where
    length and difficulty are correlated.

    The standard error treats prompts and the seeds of both sides as random: the linearised
    influence of each comparison goes through the same variance components as a plain win rate.
    Where all comparisons were won, or all lost, length explains nothing, and the result equals
    that of ``win_rate``. The model removes the effect of length in this shape, also where longer
    responses are better because they say more.
    """
    check_confidence(confidence)
    wins, difference = _comparisons(win_scores, lengths, other_lengths)
    _, _, prompts = wins.shape
    difficulties = _difficulty(difficulty, prompts)
    raw = float(wins.mean())
    seeds = (wins.shape[0], wins.shape[1])
    if raw in (0.0, 1.0):
        variance = variance_of_mean(wins.mean(axis=(0, 1)), [wins.mean(axis=1), wins.mean(axis=0)])
        exact = share_interval(raw, variance, prompts, confidence, seeds)
        return LengthControlled(raw, 0.0, exact.low, exact.high, 0.0, raw, exact.df, exact.p_value)
    columns = [np.ones(wins.size), _standardized(difference).ravel()]
    if difficulties is not None:
        columns.append(np.broadcast_to(difficulties, wins.shape).ravel())
    design = np.column_stack(columns)
    weights, information = _fit(design, wins.ravel())
    # The prediction at equal length for each prompt, and its gradient by the weights.
    at_equal_length = design[:prompts].copy()
    at_equal_length[:, 1] = 0.0
    rates_at_equal_length = special.expit(at_equal_length @ weights)
    rate = float(rates_at_equal_length.mean())
    gradient = (
        (rates_at_equal_length * (1 - rates_at_equal_length))[:, None] * at_equal_length
    ).mean(axis=0)
    residual = wins.ravel() - special.expit(design @ weights)
    score_influence = wins.size * (design @ np.linalg.solve(information, gradient)) * residual
    influence = score_influence.reshape(wins.shape) + rates_at_equal_length
    variance = variance_of_mean(
        influence.mean(axis=(0, 1)), [influence.mean(axis=1), influence.mean(axis=0)]
    )
    share = share_interval(rate, variance, prompts, confidence, seeds)
    return LengthControlled(
        rate, share.se, share.low, share.high, float(weights[1]), raw, share.df, share.p_value
    )


def instruction_difficulty(
    win_scores: ArrayLike, lengths: ArrayLike, other_lengths: ArrayLike
) -> Floats:
    """Return the difficulty γ [P] of the prompts in log odds, mean 0; high where methods often win.

    ``win_scores`` [M, P]: M methods (or seeds) against the same other responses. ``lengths`` [M, P]
    and ``other_lengths`` [P]: the lengths of both. One logistic regression over all: an intercept
    and a length slope per method and one γ per prompt, with ψ = 1 and a normal prior on γ with a
    standard deviation of 2.
    """
    wins, own_lengths = (
        np.asarray(win_scores, dtype=np.float64),
        np.asarray(lengths, dtype=np.float64),
    )
    if wins.ndim != 2 or wins.shape != own_lengths.shape:
        raise DataError(
            f"win scores have shape {wins.shape} and lengths {own_lengths.shape}; both need one "
            "row per method and one column per prompt."
        )
    methods, prompts = wins.shape
    comparisons = [
        _comparisons(wins[m : m + 1], own_lengths[m : m + 1], other_lengths) for m in range(methods)
    ]
    terms = np.stack([_standardized(difference)[0, 0] for _, difference in comparisons])

    def loss(weights: Floats) -> tuple[float, Floats]:
        """Return the penalized negative log likelihood and its gradient."""
        intercepts, slopes, difficulties = np.split(weights, [methods, 2 * methods])
        odds = intercepts[:, None] + slopes[:, None] * terms + difficulties
        residuals = special.expit(odds) - wins
        gradient = [residuals.sum(axis=1), (residuals * terms).sum(axis=1), residuals.sum(axis=0)]
        value = -_log_likelihood(odds, wins) + 0.5 * float(penalty @ weights**2)
        return value, np.concatenate(gradient) + penalty * weights

    penalty = np.full(2 * methods + prompts, _PRIOR / 4)
    penalty[2 * methods :] = _DIFFICULTY**-2
    optimum = optimize.minimize(
        loss,
        np.zeros_like(penalty),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-14, "gtol": 1e-8},
    )
    difficulties = np.asarray(optimum.x[2 * methods :], dtype=np.float64)
    centered: Floats = difficulties - difficulties.mean()
    return centered


def _comparisons(
    win_scores: ArrayLike, lengths: ArrayLike, other_lengths: ArrayLike
) -> tuple[Floats, Floats]:
    """Return win scores and length differences, both [S_a, S_b, P]."""
    wins = np.asarray(win_scores, dtype=np.float64)
    if wins.ndim == 2:
        wins = wins[:, None]
    own_lengths, their_lengths = (np.asarray(x, dtype=np.float64) for x in (lengths, other_lengths))
    if their_lengths.ndim == 1:
        their_lengths = their_lengths[None]
    if (
        wins.ndim != 3
        or own_lengths.ndim != 2
        or (len(own_lengths), len(their_lengths)) != wins.shape[:2]
    ):
        raise DataError(
            f"win scores have shape {wins.shape}, lengths {own_lengths.shape} and the other "
            f"lengths {their_lengths.shape}; win scores are [seeds of A, seeds of B, prompts], "
            "lengths [seeds, prompts]."
        )
    if not own_lengths.shape[1] == their_lengths.shape[1] == wins.shape[2]:
        raise DataError(
            f"there are win scores for {wins.shape[2]} prompts, lengths for "
            f"{own_lengths.shape[1]} and other lengths for {their_lengths.shape[1]}; give the same "
            "prompts in the same order."
        )
    if wins.shape[2] < 2:
        raise DataError("a length-controlled win rate needs at least two prompts.")
    if not ((wins >= 0) & (wins <= 1)).all():
        raise DataError("win scores must lie between 0 (lost) and 1 (won); none may be missing.")
    if not (np.isfinite(own_lengths).all() and np.isfinite(their_lengths).all()):
        raise DataError("every response needs a length; some lengths are not finite numbers.")
    return wins, own_lengths[:, None] - their_lengths[None]


def _standardized(difference: Floats) -> Floats:
    """Return tanh of the differences over their standard deviation; 0 where all are equal.

    The mean is not subtracted, as in the paper: 0 must mean equal lengths.
    """
    std = float(difference.std())
    if std <= 1e-12 * float(np.abs(difference).max()):
        # A constant difference cannot be separated from a better method: nothing is removed.
        return np.zeros_like(difference)
    scaled: Floats = np.tanh(difference / std)
    return scaled


def _difficulty(difficulty: ArrayLike | None, prompts: int) -> Floats | None:
    if difficulty is None:
        return None
    difficulties = np.asarray(difficulty, dtype=np.float64)
    if difficulties.shape != (prompts,) or not np.isfinite(difficulties).all():
        raise DataError(
            f"difficulty has shape {difficulties.shape}; give one finite number for each of the "
            f"{prompts} prompts."
        )
    return difficulties


def _fit(design: Floats, win_scores: Floats) -> tuple[Floats, Floats]:
    """Return the weights of a logistic regression and their information matrix."""
    tie = np.zeros((1, design.shape[1]))
    tie[0, 0] = 1.0
    rows = np.concatenate([design, tie])
    # A tie at equal length on a prompt of average difficulty, and a penalty of a quarter on each
    # slope: the information of one comparison at even odds.
    penalty = np.full(design.shape[1], _PRIOR / 4)
    penalty[0] = 0.0
    return _maximum(rows, np.append(win_scores, 0.5), penalty)


def _maximum(design: Floats, win_scores: Floats, penalty: Floats) -> tuple[Floats, Floats]:
    """Maximize the logistic likelihood minus half the penalized squares; return weights, Hessian.

    Newton's method; the step is halved until it does not lower the value.
    """
    weights, value = np.zeros(design.shape[1]), -math.inf
    for _ in range(200):
        chance = special.expit(design @ weights)
        information = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(information, design.T @ (win_scores - chance) - penalty * weights)
        for _ in range(40):
            new_value = _log_likelihood(design @ (weights + step), win_scores)
            new_value -= 0.5 * float(penalty @ (weights + step) ** 2)
            if new_value >= value or float(np.abs(step).max()) < 1e-10:
                break
            step = step / 2
        if float(np.abs(step).max()) < 1e-10:
            break
        weights, value = weights + step, new_value
    return weights, information


def _log_likelihood(odds: Floats, win_scores: Floats) -> float:
    """Return the log likelihood of win scores (between 0 and 1) at these log odds."""
    return float((win_scores * odds - np.logaddexp(0.0, odds)).sum())
