"""Acquisition functions: what a label on a pair is worth, by an ensemble of reward models.

Shapes: E members of the ensemble, N pairs. ``deltas`` ``[E, N]`` are each member's score of
response A less its score of response B, in the unit of the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plumbline.tables import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def preference_probabilities(deltas: Floats, temperature: float = 1.0) -> Floats:
    """Return P(A over B) by each member, ``[E, N]``: sigmoid(delta / temperature).

    This is the Bradley-Terry model, with the temperature in the unit of the scores.
    """
    from scipy.special import expit

    probabilities: Floats = expit(deltas / temperature)
    return probabilities


def vote_variance(probabilities: Floats) -> Floats:
    """Return the variance over members of P(A over B), ``[N]``, in [0, 1/4].

    Divides by E, so the variance of a single member is zero. Gleave and Irving (2022, "Uncertainty
    Estimation for Language Reward Models") use an ensemble's disagreement for active learning;
    they find no gain over uniform selection in their setting.
    """
    variance: Floats = probabilities.var(axis=0)
    return variance


def mutual_information(probabilities: Floats) -> Floats:
    """Return how much a label says about which member is right, ``[N]``, in nats, in [0, ln 2].

    H(mean p) - mean H(p), as in BALD (Houlsby et al., 2011, equation 2) with the ensemble as the
    posterior. It is zero where all members say 0.5: no label removes that noise. This is how it
    differs from a small margin.
    """
    import numpy as np

    shared = _entropy(probabilities.mean(axis=0))
    # Never below 0 by Jensen's inequality; rounding may fall short of that.
    information: Floats = np.maximum(shared - _entropy(probabilities).mean(axis=0), 0.0)
    return information


def closeness(deltas: Floats) -> Floats:
    """Return minus the size of the mean delta, ``[N]``, at most 0, in the unit of the scores.

    This is uncertainty sampling by margin: the largest values belong to the pairs on which the
    ensemble as a whole prefers neither response.
    """
    import numpy as np

    leaning: Floats = np.abs(deltas.mean(axis=0))
    return -leaning


def _entropy(probabilities: Floats) -> Floats:
    """Return the entropy of coins, in nats."""
    from scipy.special import entr

    entropy: Floats = entr(probabilities) + entr(1 - probabilities)
    return entropy


@dataclass(frozen=True)
class DisagreementMeasure:
    """One row of the table of measures: from probabilities ``[E, N]`` to values ``[N]``."""

    name: str
    values: Callable[[Floats], Floats]


DISAGREEMENT_MEASURES: Table[DisagreementMeasure] = Table(
    "measure of disagreement",
    [
        DisagreementMeasure("mutual_information", mutual_information),
        DisagreementMeasure("variance", vote_variance),
    ],
    from_function=DisagreementMeasure,
)


@dataclass(frozen=True)
class Strategy:
    """One row of the table of strategies."""

    name: str
    worth: Callable[[Floats, DisagreementMeasure, float], Floats]
    """What a label on each pair is worth, ``[N]``; more is better.

    It gets the deltas ``[E, N]``, how disagreement is measured, and the temperature."""
    members: int
    """The least number of reward models that it needs."""
    uses_measure: bool = False
    """Whether it looks at the ensemble's disagreement."""
    spreads: bool = False
    """Whether it spreads the batch over different pairs."""


def _nothing(deltas: Floats, measure: DisagreementMeasure, temperature: float) -> Floats:
    """Return zero for all pairs, which leaves the choice to the seed."""
    import numpy as np

    return np.zeros(deltas.shape[1])


def _closeness(deltas: Floats, measure: DisagreementMeasure, temperature: float) -> Floats:
    return closeness(deltas)


def _disagreement(deltas: Floats, measure: DisagreementMeasure, temperature: float) -> Floats:
    return measure.values(preference_probabilities(deltas, temperature))


def _own(path: str, function: Callable[..., Any]) -> Strategy:
    return Strategy(path, lambda deltas, measure, temperature: function(deltas), members=1)


STRATEGIES: Table[Strategy] = Table(
    "selection strategy",
    [
        Strategy("uniform", _nothing, members=0),
        Strategy("disagreement", _disagreement, members=2, uses_measure=True),
        Strategy("margin", _closeness, members=1),
        Strategy("diverse", _disagreement, members=2, uses_measure=True, spreads=True),
    ],
    from_function=_own,
)
