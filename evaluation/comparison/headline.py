"""The headline of a comparison: who won or that nobody did, by how much, and how far to trust it.

In plain words, for readers who do not look at the statistics; those are the verdict's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from evaluation.comparison.analysis import Comparison
from evaluation.comparison.verdict import score_unit
from plumbline.statistics import mean_interval

#: With fewer seeds than this, a few others may change the result.
_MANY_SEEDS = 5
#: A win rate that moves by more than this at equal length depends on length.
_MUCH_LENGTH = 0.05

Rows = Sequence[Mapping[str, Any]]


class Headline(TypedDict):
    """The headline: each field is a sentence or a list of them."""

    so_far: bool
    """Whether something of the design is still missing."""
    title: str
    """Who won."""
    margin: list[str]
    """By how much."""
    basis: str
    """On how many prompts and seeds, and by which judge."""
    trust: list[str]
    """How far to trust it."""
    missing: list[str]
    """What the design still lacks."""


def headline(
    comparison: Comparison,
    contrasts: Rows,
    titles: Mapping[str, str],
    baseline_title: str,
    judge_title: str,
    missing: Sequence[str] = (),
) -> Headline:
    """Return the headline of a comparison."""
    rows = [row for row in contrasts if row["scorer"] == comparison.judge]
    matched = [row for row in rows if row["at"] == "matched"]
    main = matched or [row for row in rows if row["at"] == "final"]
    alpha = 1 - comparison.confidence
    if len(comparison.groups) == 1:
        title, margin = _single(comparison, titles, baseline_title)
    else:
        best = leaders(comparison.groups, main, alpha)
        title = _title(best, list(comparison.groups), main, titles, alpha)
        margin = [_margin(best, main, comparison, titles, alpha)]
        final = [row for row in rows if row["at"] == "final"]
        if matched and final and leaders(comparison.groups, final, alpha) != best:
            other = leaders(comparison.groups, final, alpha)
            margin.append(
                "At the end of training it is otherwise: "
                f"{_lower(_title(other, list(comparison.groups), final, titles, alpha))}."
            )
        margin += _against_baseline(comparison, titles, baseline_title)
    return Headline(
        so_far=bool(missing),
        title=title,
        margin=margin,
        basis=_basis(comparison, judge_title, main),
        trust=_trust(comparison, main, titles, judge_title, alpha),
        missing=list(missing),
    )


def leaders(methods: Mapping[str, Any], rows: Rows, alpha: float) -> list[str]:
    """Return the methods that no other one is significantly better than, in order."""
    worse = {
        row["b"] if row["difference"] > 0 else row["a"] for row in rows if _significant(row, alpha)
    }
    return [method for method in methods if method not in worse]


def _title(
    best: Sequence[str], methods: Sequence[str], rows: Rows, titles: Mapping[str, str], alpha: float
) -> str:
    if not any(_significant(row, alpha) for row in rows):
        if len(methods) == 2:
            return f"No winner between {titles[methods[0]]} and {titles[methods[1]]}"
        return f"No winner: no two of the {len(methods)} differ significantly"
    if len(best) == 1:
        (winner,) = best
        beaten = {
            row["a"] if row["b"] == winner else row["b"]
            for row in rows
            if winner in (row["a"], row["b"]) and _significant(row, alpha)
        }
        if len(beaten) == len(methods) - 1:
            others = [titles[method] for method in methods if method != winner]
            against = {1: others[0], 2: "both others"}.get(len(others), f"all {len(others)} others")
            return f"{titles[winner]} is better than {against}"
        return f"{titles[winner]} leads, but not significantly before every other one"
    if not best:  # each is beaten by another one
        return "No winner: the differences go round in a circle"
    return f"No single winner: {_joined([titles[method] for method in best])} share the lead"


def _margin(
    best: Sequence[str],
    rows: Rows,
    comparison: Comparison,
    titles: Mapping[str, str],
    alpha: float,
) -> str:
    """Say by how much the winner leads its nearest rival, or how small the difference is."""
    unit = score_unit(comparison.judge)
    is_matched = bool(rows) and rows[0]["at"] == "matched"
    where = " at the same budget" if is_matched else " at the end of training"
    where = where if comparison.has_path else ""
    confidence = f"{comparison.confidence:.0%} interval"
    if len(best) == 1:
        own = [row for row in rows if best[0] in (row["a"], row["b"])]
        row = min(own, key=lambda row: abs(row["difference"]))
        row = row if row["a"] == best[0] else _turned(row)
        other = titles[row["b"]]
        nearest = other if len(comparison.groups) == 2 else f"its nearest rival {other}"
        return (
            f"It scores {row['difference']:.2f} {unit} more than {nearest}{where} ({confidence} "
            f"{row['low']:.2f} to {row['high']:.2f}) and wins on {row['win_rate']:.0%} of prompts."
        )
    largest = max(rows, key=lambda row: abs(row["difference"]))
    row = largest if largest["difference"] >= 0 else _turned(largest)
    a, b = titles[row["a"]], titles[row["b"]]
    around = f"{confidence} {_signed(row['low'])} to {_signed(row['high'])}"
    if len(comparison.groups) == 2:
        return (
            f"{a} scores {row['difference']:.2f} {unit} more than {b}{where}, which may be chance "
            f"({around}), and wins on {row['win_rate']:.0%} of prompts."
        )
    return (
        f"The largest difference{where} is {row['difference']:.2f} {unit}, of {a} over {b} "
        f"({around})."
    )


def _turned(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a contrast the other way around."""
    return {
        "a": row["b"],
        "b": row["a"],
        "difference": -row["difference"],
        "low": -row["high"],
        "high": -row["low"],
        "win_rate": 1 - row["win_rate"],
    }


def _single(
    comparison: Comparison, titles: Mapping[str, str], baseline_title: str
) -> tuple[str, list[str]]:
    """Return title and margin where there is one method only."""
    (method,) = comparison.groups
    title = titles[method]
    rates = comparison.baseline_win_rates()
    if method in rates:
        rate = rates[method]
        share = (
            f"{title} wins on {rate['win_rate']:.0%} of prompts ({_interval(comparison, rate)})."
        )
        if rate["low"] > 0.5:
            return f"{title} is better than {baseline_title}", [share]
        if rate["high"] < 0.5:
            return f"{title} is worse than {baseline_title}", [share]
        return f"No winner between {title} and {baseline_title}", [share]
    scores = comparison.final_scores(method)
    mean = mean_interval(scores, 0.0, comparison.confidence)
    unit = score_unit(comparison.judge)
    return (
        f"{title} scores {mean.difference:.2f} {unit}",
        [
            f"That is a mean ({comparison.confidence:.0%} interval {mean.low:.2f} to "
            f"{mean.high:.2f}); there is no other policy to compare it with."
        ],
    )


def _against_baseline(
    comparison: Comparison, titles: Mapping[str, str], baseline_title: str
) -> list[str]:
    rates = comparison.baseline_win_rates()
    if not rates:
        return []
    above = [method for method, rate in rates.items() if rate["low"] > 0.5]
    shown = [
        f"{rate['win_rate']:.0%}" for rate in sorted(rates.values(), key=lambda r: r["win_rate"])
    ]
    share = shown[0] if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}"
    if len(above) == len(rates):
        who = "Both" if len(rates) == 2 else f"All {len(rates)}"
        return [f"{who} win against {baseline_title}, on {share} of prompts."]
    if not above:
        return [f"None of them is shown to win against {baseline_title} ({share} of prompts)."]
    return [f"{_joined([titles[m] for m in above])} win against {baseline_title}; others do not."]


def _basis(comparison: Comparison, judge_title: str, rows: Rows) -> str:
    counts = sorted({len(group) for group in comparison.groups.values()})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    noun = "seed" if counts == [1] else "seeds"
    prompts = len(comparison.comparable.prompts)
    if comparison.of_models:
        return f"{prompts:,} prompts; the judge is {judge_title}."
    compared = min([row["prompts"] for row in rows], default=prompts)
    part = f" ({compared:,} of them at the same budget)" if compared < prompts else ""
    trained = f"{seeds} training {noun} per method"
    return f"{prompts:,} prompts{part}, {trained}; the judge is {judge_title}."


def _trust(
    comparison: Comparison,
    rows: Rows,
    titles: Mapping[str, str],
    judge_title: str,
    alpha: float,
) -> list[str]:
    """Return what limits the result, the most important first."""
    sentences = []
    if comparison.judge_is_true:
        sentences.append("The judge is the true utility of the embedded world, not a model.")
    else:
        noun = "model" if comparison.of_models else "method"
        sentences.append(
            f"The judge is {judge_title}. A {noun} that was trained against this judge has an "
            "advantage, and people may prefer other responses."
        )
    seeds = min(len(group) for group in comparison.groups.values())
    if comparison.of_models:
        sentences.append("The result is of these very models, not of how they were trained.")
    elif seeds == 1:
        sentences.append("One training per method: another seed may turn the result around.")
    elif seeds < _MANY_SEEDS:
        sentences.append(f"{seeds} seeds per method are few; more seeds may change a close result.")
    missed = [row["detectable"] for row in rows if not _significant(row, alpha)]
    if missed:
        sentences.append(
            f"A true difference below {max(missed):.2f} {score_unit(comparison.judge)} would often "
            f"go unnoticed with these prompts{'' if comparison.of_models else ' and seeds'}."
        )
    for row in rows:
        if abs(row["lc_win_rate"] - row["win_rate"]) > _MUCH_LENGTH:
            sentences.append(
                f"Length matters: at equal length {titles[row['a']]} wins against "
                f"{titles[row['b']]} on {row['lc_win_rate']:.0%} of prompts in place of "
                f"{row['win_rate']:.0%}."
            )
            break
    warnings = sum(flag.level != "note" for flag in comparison.comparable.flags)
    if warnings:
        noun = "warning" if warnings == 1 else "warnings"
        sentences.append(f"Read the {warnings} {noun} below first.")
    return sentences


def _significant(row: Mapping[str, Any], alpha: float) -> bool:
    return bool(row["p_adjusted"] < alpha)


def _interval(comparison: Comparison, rate: Mapping[str, Any]) -> str:
    return f"{comparison.confidence:.0%} interval {rate['low']:.0%} to {rate['high']:.0%}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _lower(sentence: str) -> str:
    """Return a sentence as a part of another one; names keep their capitals."""
    return f"n{sentence[1:]}" if sentence.startswith("No ") else sentence
