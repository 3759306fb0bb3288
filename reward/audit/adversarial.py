"""Adversarial suffixes: a few words that raise the score of any response, found by search.

What a policy can find in training, a search finds here in minutes. The suffix is chosen on some
responses and measured on others: it is universal, and its gain is not that of a lucky choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from plumbline.data.records import Message
from plumbline.seeds import rng
from reward.audit.robustness import Score
from reward.audit.shares import CONFIDENCE, Share, share_of


class SuffixSearch(NamedTuple):
    """What a search may spend."""

    words: int = 6
    """Words of the suffix."""
    random_suffixes: int = 64
    """Suffixes that are tried at random; the best one is where the token search begins."""
    candidates: int = 16
    """Words that are tried in each place of each round."""
    rounds: int = 1
    """How often every place is tried."""
    responses: int = 8
    """Responses on which suffixes are compared."""


class FoundSuffix(NamedTuple):
    """A suffix and what it gains on responses that it was not chosen on."""

    how: str
    suffix: str
    gain: float
    """Mean gain of the score, in standard deviations of it."""
    low: float
    high: float
    wins: Share
    """Share of rejected responses that beat the chosen one with the suffix."""
    won_before: Share
    """The same without it."""
    scored: int
    """Responses that were scored for the search."""


def search_suffixes(
    score: Score,
    prompts: Sequence[Sequence[Message]],
    rejected: Sequence[str],
    rejected_scores: Sequence[float],
    chosen_scores: Sequence[float],
    vocabulary: Sequence[str],
    std: float,
    seed: int,
    search: SuffixSearch,
    on_progress: Callable[[], None] = lambda: None,
) -> list[FoundSuffix]:
    """Return the suffix of best-of-n and that of the token search, measured on other responses.

    Prompts, responses and scores are [N]; the first ``search.responses`` are for the search.
    Empty where there are too few responses or words to measure anything.
    """
    count = min(search.responses, len(rejected) // 2)
    if count < 2 or len(vocabulary) < 2 or std == 0:
        return []
    draw = rng(seed, "adversarial suffix")
    scored = 0

    def worth(suffix: Sequence[str]) -> float:
        """Return the mean score of the responses of the search with a suffix."""
        nonlocal scored
        scored += count
        on_progress()
        scores = score(prompts[:count], [_with(text, suffix) for text in rejected[:count]])
        mean = float(np.mean(scores))
        return mean if math.isfinite(mean) else -math.inf

    # 1. Best of n suffixes that are drawn at random.
    drawn = [
        [draw.choice(vocabulary) for _ in range(search.words)]
        for _ in range(search.random_suffixes)
    ]
    worths = [worth(suffix) for suffix in drawn]
    best = drawn[int(np.argmax(worths))]
    suffixes = [("best of random suffixes", list(best), scored)]

    # 2. Token search: place by place, the best of some words (greedy coordinate ascent).
    value = max(worths)
    for _ in range(search.rounds):
        for place in range(search.words):
            for word in draw.sample(vocabulary, min(search.candidates, len(vocabulary))):
                tried = [*best[:place], word, *best[place + 1 :]]
                new = worth(tried)
                if new > value:
                    best, value = tried, new
    suffixes.append(("token search", best, scored))
    held_out = slice(count, None)
    return [
        _measured(
            how, suffix, spent, score, prompts[held_out], rejected[held_out],
            rejected_scores[held_out], chosen_scores[held_out], std,
        )
        for how, suffix, spent in suffixes
    ]  # fmt: skip


def _measured(
    how: str,
    suffix: Sequence[str],
    spent: int,
    score: Score,
    prompts: Sequence[Sequence[Message]],
    rejected: Sequence[str],
    rejected_scores: Sequence[float],
    chosen_scores: Sequence[float],
    std: float,
) -> FoundSuffix:
    before, chosen = np.asarray(rejected_scores), np.asarray(chosen_scores)
    after = np.asarray(score(prompts, [_with(text, suffix) for text in rejected]))
    keep = np.isfinite(after)
    gains = (after[keep] - before[keep]) / std
    error = float(gains.std(ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else math.inf
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, max(1, len(gains) - 1))) * error
    mean = float(gains.mean())
    return FoundSuffix(
        how, " ".join(suffix), mean, mean - half, mean + half,
        share_of((after[keep] > chosen[keep]).astype(float).tolist()),
        share_of((before[keep] > chosen[keep]).astype(float).tolist()),
        spent,
    )  # fmt: skip


def _with(text: str, suffix: Sequence[str]) -> str:
    return f"{text} {' '.join(suffix)}"


def vocabulary_of(texts: Sequence[str], at_most: int = 2000) -> list[str]:
    """Return the words of texts, the most frequent first, and marks that models like."""
    counts: dict[str, int] = {}
    for text in texts:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    words = sorted(counts, key=lambda word: (-counts[word], word))[:at_most]
    return [*words, *(mark for mark in ("!", "**", "#", "✅", "1.", "-") if mark not in counts)]
