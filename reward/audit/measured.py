"""Everything that an audit measured, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from reward.audit.adversarial import FoundSuffix
from reward.audit.biases import Bias, ByLength, OrderEffect
from reward.audit.label_problems import Contradictions, Suspicious
from reward.audit.optimization import OverOptimization
from reward.audit.pair_calibration import PairCalibration
from reward.audit.people import Agreement
from reward.audit.reward_bench import BenchScore
from reward.audit.robustness import Reaction
from reward.audit.shares import Share, WeakSubset


@dataclass
class Calibrated:
    """Calibration on half of the prompts, with the temperature of the other half."""

    before: PairCalibration
    """At the temperature that the model has: 1, or the one saved with it."""
    after: PairCalibration | None
    temperature: float | None
    """Fitted on all pairs; None where none is best."""


@dataclass
class Measured:
    """What was measured of a reward model."""

    pairs: int
    decided: int
    """Pairs of which one response is known to be the better."""
    std: float
    """Standard deviation of the scores, the unit of all effects."""
    shortened: int
    """Texts that were longer than the model takes, and of which it saw the end alone."""
    accuracy: Share | None = None
    by_subset: dict[str, Share] = field(default_factory=dict)
    by_language: dict[str, Share] = field(default_factory=dict)
    weak: list[WeakSubset] = field(default_factory=list)
    benchmarks: list[BenchScore] = field(default_factory=list)
    people: Agreement | None = None
    calibration: Calibrated | None = None
    biases: list[Bias] = field(default_factory=list)
    by_length: ByLength | None = None
    order: OrderEffect | None = None
    reactions: list[Reaction] = field(default_factory=list)
    suffixes: list[FoundSuffix] = field(default_factory=list)
    optimization: OverOptimization | None = None
    other_optimizations: dict[str, OverOptimization] = field(default_factory=dict)
    """Of other scorers on the same responses, such as an ensemble."""
    contradictions: Contradictions | None = None
    suspicious: Suspicious | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
