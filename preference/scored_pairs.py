"""Pairs of a prompt's scored responses, and why a prompt has none."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from preference.pairing import PAIRINGS, PairingSettings, Pairs, passes
from preference.pairs_config import PairFilterConfig, ScoredPairsConfig


class ScoredPairs(NamedTuple):
    """Pairs of responses by their numbers, the better one first."""

    pairs: Pairs
    reason: str | None
    """Why there are none, or None where there are some."""


def scored_pairs(
    texts: Sequence[str],
    scores: Sequence[float],
    config: ScoredPairsConfig,
    filter: PairFilterConfig,
    rng: random.Random,
) -> ScoredPairs:
    """Return the pairs of a prompt's responses.

    Empty responses leave, and of equal ones all but the first.
    """
    different = {text: n for n, text in reversed(list(enumerate(texts))) if text.strip()}
    kept = sorted(different.values())
    if len(kept) < 2:
        return ScoredPairs([], "all responses are the same or empty")
    own = [scores[n] for n in kept]
    settings = PairingSettings(config.target_gap, config.rso_beta)
    limits = (filter.max_similarity, filter.max_length_ratio)
    pairs = [(kept[a], kept[b]) for a, b in PAIRINGS[config.pairing].function(own, settings, rng)]
    passing = [(a, b) for a, b in pairs if passes(texts[a], texts[b], *limits)]
    wide = [(a, b) for a, b in passing if scores[a] - scores[b] > config.min_gap]
    if wide:
        return ScoredPairs(wide, None)
    if passing:
        return ScoredPairs([], "is within min_gap")
    reason = "filter lets no pair pass" if pairs else "all responses have the same score"
    return ScoredPairs([], reason)
