"""Statistics that rooms share, as pure functions of arrays; docs/statistics.md has the reasons."""

from __future__ import annotations

from plumbline.statistics.best_of_n import BestOf, best_of
from plumbline.statistics.bootstrap import bootstrap_interval, hierarchical_bootstrap
from plumbline.statistics.crossed_effects import Contrast, contrast, mean_interval
from plumbline.statistics.estimates import (
    Band,
    Estimate,
    Interval,
    band,
    mean_and_se,
    sequence_kl,
    win_scores,
)
from plumbline.statistics.frontier import GaoFit, area_to, at_kl, best_of_n_kl, gao_fit
from plumbline.statistics.length_control import (
    LengthControlled,
    instruction_difficulty,
    length_controlled,
)
from plumbline.statistics.multiple_testing import benjamini_hochberg, holm
from plumbline.statistics.power import detectable, power_at
from plumbline.statistics.ranking import Ranked, bradley_terry, ranking
from plumbline.statistics.win_rates import head_to_head, win_rate, win_share

__all__ = [
    "Band",
    "BestOf",
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
    "best_of",
    "best_of_n_kl",
    "bootstrap_interval",
    "bradley_terry",
    "contrast",
    "detectable",
    "gao_fit",
    "head_to_head",
    "hierarchical_bootstrap",
    "holm",
    "instruction_difficulty",
    "length_controlled",
    "mean_and_se",
    "mean_interval",
    "power_at",
    "ranking",
    "sequence_kl",
    "win_rate",
    "win_scores",
    "win_share",
]
