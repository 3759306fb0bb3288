"""Length, repetition and diversity of answers, in words split at white space.

Words and not tokens: policies with different tokenizers are measured alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

from evaluation.measures.measure import Answers, Columns, Figures, Measure, by_text

_ORDER = 4


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of words, in order; none where there are fewer than n words."""
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def characters() -> Measure:
    """Length of an answer in characters."""
    return Measure(
        "characters", "characters an answer", "characters", None,
        by_text(lambda text: float(len(text)), "characters"),
    )  # fmt: skip


def distinct(n: int) -> Measure:
    """Different n-grams over all n-grams of the whole set (distinct-n; Li et al., 2016).

    It falls with the number of answers, so it compares sets of the same size only.
    """
    name = f"distinct_{n}"

    def of_set(answers: Answers, _: Columns) -> Figures:
        found = [gram for text in answers.texts() for gram in ngrams(text.split(), n)]
        return {name: len(set(found)) / len(found) if found else None}

    return Measure(name, f"distinct-{n}", "share of n-grams", True, of_set=of_set)


def repetition(n: int = _ORDER) -> Measure:
    """Share of an answer's n-grams that it has said before (seq-rep-n; Welleck et al., 2020).

    1 - different n-grams / n-grams; no value for answers of fewer than n words. Words are those
    between white space, where the paper counts tokens.
    """

    def share(text: str) -> float | None:
        grams = ngrams(text.split(), n)
        return 1 - len(set(grams)) / len(grams) if grams else None

    return Measure(
        "repetition", f"repeated {n}-grams", "share of n-grams", False, by_text(share, "repetition")
    )


def self_bleu() -> Measure:
    """Mean BLEU of each answer against all others (self-BLEU; Zhu et al., 2018).

    The less, the more diverse. Sentence BLEU as sacrebleu computes it (13a, exponential smoothing,
    effective order), with all other answers as references. It rises with the number of answers, so
    it compares sets of the same size only. The clipped counts of all answers but one are read from
    the largest and second largest count of each n-gram, so that the time grows with the number of
    answers and not with its square.
    """

    def by_row(answers: Answers) -> Columns:
        return {"self_bleu": self_bleu_scores(answers.texts())}

    return Measure("self_bleu", "self-BLEU", "0 to 100", False, by_row)


def self_bleu_scores(texts: Sequence[str]) -> list[float | None]:
    """Return the sentence BLEU of each text against all others; None where there is one text."""
    if len(texts) < 2:
        return [None] * len(texts)
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenize: Any = Tokenizer13a()  # type: ignore[no-untyped-call]
    words = [str(tokenize(text.rstrip())).split() for text in texts]
    counts = [
        Counter(gram for n in range(1, _ORDER + 1) for gram in ngrams(sentence, n))
        for sentence in words
    ]
    best = _two_largest(counts)
    lengths = sorted(map(len, words))
    scores: list[float | None] = []
    for sentence, grams in zip(words, counts, strict=True):
        correct, total = [0] * _ORDER, [0] * _ORDER
        for gram, count in grams.items():
            first, second = best[gram]
            others = second if count == first else first
            correct[len(gram) - 1] += min(count, others)
            total[len(gram) - 1] += count
        score = BLEU.compute_bleu(
            correct, total, len(sentence), _closest_other(lengths, len(sentence)),
            smooth_method="exp", effective_order=True,
        )  # fmt: skip
        scores.append(float(score.score))
    return scores


def _two_largest(
    counts: Sequence[Counter[tuple[str, ...]]],
) -> dict[tuple[str, ...], tuple[int, int]]:
    """Return how often each n-gram occurs in the texts that have it most and second most often."""
    best: dict[tuple[str, ...], tuple[int, int]] = {}
    for grams in counts:
        for gram, count in grams.items():
            first, second = best.get(gram, (0, 0))
            best[gram] = (count, first) if count > first else (first, max(second, count))
    return best


def _closest_other(lengths: Sequence[int], length: int) -> int:
    """Return the length nearest to one of the sorted lengths, that one taken out once.

    Of two as near, the shorter, as sacrebleu does.
    """
    place = bisect_left(lengths, length)
    if place + 1 < len(lengths) and lengths[place + 1] == length:
        return length
    nearest = [lengths[i] for i in (place - 1, place + 1) if 0 <= i < len(lengths)]
    return min(nearest, key=lambda other: (abs(other - length), other))
