"""The verdict: sentences that say no more than the figures bear out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.analysis import Comparison

#: Pairs of methods that are spoken of one by one.
_PAIRS_IN_WORDS = 3
_UNITS = {"gold": "points of gold utility", "reward": "deviations of the reward model's score"}


def verdict(
    comparison: Comparison,
    contrasts: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str],
) -> list[str]:
    """Return the verdict: first at the matched budget, then at the end, then its limits."""
    sentences = []
    for at in ("matched", "final"):
        rows = [r for r in contrasts if r["at"] == at and r["scorer"] == comparison.judge]
        if len(rows) <= _PAIRS_IN_WORDS:
            sentences += [_between(row, comparison, titles) for row in rows]
        else:
            sentences += _among(rows, comparison, titles)
    levels = comparison.levels()
    if len(levels) > _PAIRS_IN_WORDS and all(level["low"] > 0.5 for level in levels.values()):
        rates = [level["win_rate"] for level in levels.values()]
        sentences.append(
            f"All {len(levels)} methods win against {titles['baseline']}, on {min(rates):.0%} to "
            f"{max(rates):.0%} of prompts, each with its interval above one half."
        )
    else:
        sentences += [
            _over_baseline(method, level, comparison, titles) for method, level in levels.items()
        ]
    sentences.append(_limits(comparison))
    return sentences


def _among(
    rows: Sequence[Mapping[str, Any]], comparison: Comparison, titles: Mapping[str, str]
) -> list[str]:
    """Speak of many pairs: those that are told apart, one by one, and how many are not."""
    apart = [row for row in rows if row["p_adjusted"] < 1 - comparison.confidence]
    found = [_between(row, comparison, titles) for row in apart[:_PAIRS_IN_WORDS]]
    rest = [row for row in rows if row not in apart]
    if len(apart) > _PAIRS_IN_WORDS:
        found.append(f"{len(apart) - _PAIRS_IN_WORDS} more pairs are told apart; see the table.")
    if rest:
        seen = [row["detectable"] for row in rest]
        found.append(
            f"{_where(rows[0], comparison)}, {len(rest)} of {len(rows)} pairs of methods cannot be "
            f"told apart; differences of {min(seen):.2f} to {max(seen):.2f} "
            f"{_unit(comparison.judge)} would have been found with 80 % power."
        )
    return found


def _where(row: Mapping[str, Any], comparison: Comparison) -> str:
    if row["at"] == "matched" and comparison.budget:
        return f"At a matched budget ({comparison.budget.text})"
    return "At the end of training"


def _unit(scorer: str) -> str:
    return _UNITS.get(scorer, f"points of {scorer}")


def _between(row: Mapping[str, Any], comparison: Comparison, titles: Mapping[str, str]) -> str:
    a, b = titles[row["a"]], titles[row["b"]]
    alpha = 1 - comparison.confidence
    where, unit = _where(row, comparison), _unit(row["scorer"])
    interval = f"{comparison.confidence:.0%} interval {row['low']:+.2f} to {row['high']:+.2f}"
    p = f"p {_p(row['p_adjusted'])} after Holm's correction"
    if row["p_adjusted"] < alpha:
        better, worse = (a, b) if row["difference"] > 0 else (b, a)
        return (
            f"{where}, {better} does better than {worse} by {abs(row['difference']):.2f} {unit} "
            f"({a} − {b}: {interval}; {p})."
        )
    return (
        f"{where}, these data do not tell {a} from {b}: {a} − {b} is {row['difference']:+.2f} "
        f"{unit} ({interval}; {p}). A difference of {row['detectable']:.2f} would have been found "
        "with 80 % power; smaller ones may be there."
    )


def _over_baseline(
    method: str, level: Mapping[str, Any], comparison: Comparison, titles: Mapping[str, str]
) -> str:
    start = titles["baseline"]
    title = titles[method]
    over = "seeds and prompts" if len(comparison.groups[method]) > 1 else "prompts"
    interval = f"{comparison.confidence:.0%} interval {level['low']:.0%} to {level['high']:.0%}"
    if level["low"] > 0.5:
        said = "wins against"
    elif level["high"] < 0.5:
        said = "loses to"
    else:
        return (
            f"{title} is not told apart from {start}: it wins {level['win_rate']:.0%} ({interval})."
        )
    share = level["win_rate"] if said == "wins against" else 1 - level["win_rate"]
    return f"{title} {said} {start} on {share:.0%} of prompts (win rate: {interval}, over {over})."


def _limits(comparison: Comparison) -> str:
    counts = {len(group) for group in comparison.groups.values()}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    speaks = (
        "With one seed a method, the intervals speak of other prompts and not of other training "
        "seeds."
        if max(counts) == 1
        else f"The intervals speak of other prompts like these {len(comparison.checked.prompts)} "
        f"and of other training seeds like these {seeds} a method."
    )
    judged = (
        "They do not speak of another base model, reward model or set of preferences."
        if comparison.judge == "gold"
        else f"The judge is {comparison.judge}, which a method may have been trained against: what "
        "people would say is not known."
    )
    return f"{speaks} {judged}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
