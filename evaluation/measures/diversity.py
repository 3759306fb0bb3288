"""Length, repetition and diversity of responses, in words (`evaluation.words`).

Words and not tokens, so that policies with different tokenizers compare.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from evaluation.measures.measure import Columns, Measure, Metrics, Responses, by_text
from evaluation.measures.tokenizers import bleu_tokens
from evaluation.words import words_of

_ORDER = 4


def ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of words in order; an empty list for fewer than n words."""
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def characters() -> Measure:
    """Length of a response in characters."""
    return Measure(
        "characters", "characters per response", "characters", None,
        by_text(lambda text: float(len(text)), "characters"),
    )  # fmt: skip


def distinct(n: int) -> Measure:
    """Distinct n-grams over all n-grams of the whole set (distinct-n; Li et al., 2016).

    It falls with the number of responses, so only sets of the same size compare.
    """
    name = f"distinct_{n}"

    def of_set(responses: Responses, _: Columns) -> Metrics:
        grams = [gram for text in responses.texts() for gram in ngrams(words_of(text), n)]
        return {name: len(set(grams)) / len(grams) if grams else None}

    return Measure(name, f"distinct-{n}", "share of n-grams", True, of_set=of_set)


def repetition(n: int = _ORDER) -> Measure:
    """Share of repeated n-grams in a response (seq-rep-n; Welleck et al., 2020).

    1 - distinct n-grams / n-grams; no value for responses of fewer than n words. The paper counts
    tokens and not words.
    """

    def share(text: str) -> float | None:
        grams = ngrams(words_of(text), n)
        return 1 - len(set(grams)) / len(grams) if grams else None

    return Measure(
        "repetition", f"repeated {n}-grams", "share of n-grams", False, by_text(share, "repetition")
    )


def self_bleu() -> Measure:
    """Mean BLEU of each response against all others (self-BLEU; Zhu et al., 2018).

    Lower is more diverse. Sentence BLEU as in sacrebleu (13a, exponential smoothing, effective
    order), with all other responses as references; in scripts without spaces each character is a
    token. It rises with the number of responses, so only sets of the same size compare. The clipped
    counts over all other responses follow from the largest and second largest count of each
    n-gram, so the time grows linearly with the number of responses.
    """

    def by_row(responses: Responses) -> Columns:
        return {"self_bleu": self_bleu_scores(responses.texts())}

    return Measure("self_bleu", "self-BLEU", "0 to 100", False, by_row)


def self_bleu_scores(texts: Sequence[str]) -> list[float | None]:
    """Return the sentence BLEU of each text against all others; None for a single text."""
    if len(texts) < 2:
        return [None] * len(texts)
    from sacrebleu.metrics.bleu import BLEU

    tokenized = bleu_tokens(texts)
    counts = [
        Counter(gram for n in range(1, _ORDER + 1) for gram in ngrams(sentence, n))
        for sentence in tokenized
    ]
    largest_counts = _two_largest(counts)
    lengths = sorted(map(len, tokenized))
    scores: list[float | None] = []
    for sentence, grams in zip(tokenized, counts, strict=True):
        correct, total = [0] * _ORDER, [0] * _ORDER
        for gram, count in grams.items():
            most, second_most = largest_counts[gram]
            most_elsewhere = second_most if count == most else most
            correct[len(gram) - 1] += min(count, most_elsewhere)
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
    """Return the largest and second largest count of each n-gram over the texts."""
    largest: dict[tuple[str, ...], tuple[int, int]] = {}
    for grams in counts:
        for gram, count in grams.items():
            most, second_most = largest.get(gram, (0, 0))
            largest[gram] = (count, most) if count > most else (most, max(second_most, count))
    return largest


def _closest_other(lengths: Sequence[int], length: int) -> int:
    """Return the nearest of the sorted lengths to ``length``, with one such length removed.

    Of two that are equally near, the shorter, as in sacrebleu.
    """
    position = bisect_left(lengths, length)
    if position + 1 < len(lengths) and lengths[position + 1] == length:
        return length
    nearest = [lengths[i] for i in (position - 1, position + 1) if 0 <= i < len(lengths)]
    return min(nearest, key=lambda other: (abs(other - length), other))
