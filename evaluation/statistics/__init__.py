"""Statistics of a comparison, as pure functions of arrays. docs/statistics.md says why these."""

from __future__ import annotations

from evaluation.statistics.bootstrap import hierarchical_bootstrap
from evaluation.statistics.correction import benjamini_hochberg, holm
from evaluation.statistics.crossed import Contrast, contrast, level
from evaluation.statistics.estimates import (
    Band,
    Estimate,
    Interval,
    band,
    mean_and_error,
    mean_interval,
    sequence_kl,
    win_points,
)
from evaluation.statistics.frontier import GaoFit, area_to, at_kl, best_of_n_kl, gao_fit
from evaluation.statistics.lengths import (
    LengthControlled,
    instruction_difficulty,
    length_controlled,
)
from evaluation.statistics.power import detectable, power_at
from evaluation.statistics.ranking import Ranked, bradley_terry, ranking
from evaluation.statistics.wins import head_to_head, win_rate

__all__ = [
    "Band",
    "Contrast",
    "Estimate",
    "GaoFit",
    "Interval",
    "LengthControlled",
    "Ranked",
    "area_to",
    "at_kl",
    "band",
    "benjamini_hochberg",
    "best_of_n_kl",
    "bradley_terry",
    "contrast",
    "detectable",
    "gao_fit",
    "head_to_head",
    "hierarchical_bootstrap",
    "holm",
    "instruction_difficulty",
    "length_controlled",
    "level",
    "mean_and_error",
    "mean_interval",
    "power_at",
    "ranking",
    "sequence_kl",
    "win_points",
    "win_rate",
]
