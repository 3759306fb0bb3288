"""Settings of which pairs are labelled next."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from annotation.selection.acquisition import DISAGREEMENT_MEASURES, STRATEGIES
from plumbline.config import Config, only_when

_MEASURED = STRATEGIES.where(lambda strategy: strategy.uses_measure)
_SPREAD = STRATEGIES.where(lambda strategy: strategy.spreads)


class SelectionConfig(Config):
    """Which pairs are labelled next, and how many at once."""

    strategy: Annotated[str, STRATEGIES] = "uniform"
    """uniform: at random. disagreement: where the reward models of an ensemble disagree most.
    margin: where their mean score difference is smallest. diverse: among the pairs they disagree
    about, those that are unlike each other and unlike what is labelled."""
    count: int = Field(100, ge=1)
    """Pairs to choose."""
    measure: Annotated[str, DISAGREEMENT_MEASURES] = only_when(
        lambda config: STRATEGIES[config.strategy].uses_measure,
        f"strategy: {_MEASURED}",
        "mutual_information",
    )
    """How disagreement is measured: by the information that a label gives about which model is
    right, or by the variance of their probabilities."""
    temperature: float = only_when(
        lambda config: STRATEGIES[config.strategy].uses_measure,
        f"strategy: {_MEASURED}",
        1.0,
        gt=0,
    )
    """P(A over B) = sigmoid((r_A - r_B) / temperature) turns scores into probabilities."""
    candidates: int = only_when(
        lambda config: STRATEGIES[config.strategy].spreads, f"strategy: {_SPREAD}", 4, ge=1
    )
    """The number of candidates, those that the models disagree about most, as a multiple of
    count."""
    near_identical: float | None = Field(0.98, gt=0, le=1)
    """Of pairs whose features have at least this cosine, only one is chosen at a time. Null: no
    limit."""
