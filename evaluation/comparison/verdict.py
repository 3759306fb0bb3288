"""The verdict: sentences that state only what the data support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.analysis import Comparison

#: So many pairs of methods have a sentence each.
_PAIRS_IN_WORDS = 3
_UNITS = {
    "gold": "points of gold utility",
    "reward": "standard deviations of the reward-model score",
}


def verdict(
    comparison: Comparison,
    contrasts: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str],
    baseline_title: str,
) -> list[str]:
    """Return the verdict: first at the matched budget, then at the end, then its limits."""
    sentences = []
    for at in ("matched", "final"):
        rows = [r for r in contrasts if r["at"] == at and r["scorer"] == comparison.judge]
        if len(rows) <= _PAIRS_IN_WORDS:
            sentences += [_contrast_sentence(row, comparison, titles) for row in rows]
        else:
            sentences += _summary_of_pairs(rows, comparison, titles)
    rates = comparison.baseline_win_rates()
    if len(rates) > _PAIRS_IN_WORDS and all(rate["low"] > 0.5 for rate in rates.values()):
        values = [rate["win_rate"] for rate in rates.values()]
        sentences.append(
            f"All {len(rates)} methods win against {baseline_title}, on {min(values):.0%} to "
            f"{max(values):.0%} of prompts; every interval is above one half."
        )
    else:
        sentences += [
            _win_sentence(method, rate, comparison, titles[method], baseline_title)
            for method, rate in rates.items()
        ]
    sentences.append(_limits(comparison))
    return sentences


def _summary_of_pairs(
    rows: Sequence[Mapping[str, Any]], comparison: Comparison, titles: Mapping[str, str]
) -> list[str]:
    """Summarize many pairs: significant differences one by one, and the number of others."""
    significant = [row for row in rows if row["p_adjusted"] < 1 - comparison.confidence]
    sentences = [
        _contrast_sentence(row, comparison, titles) for row in significant[:_PAIRS_IN_WORDS]
    ]
    others = [row for row in rows if row not in significant]
    if len(significant) > _PAIRS_IN_WORDS:
        sentences.append(
            f"{len(significant) - _PAIRS_IN_WORDS} more pairs differ significantly; see the table."
        )
    if others:
        detectable = [row["detectable"] for row in others]
        sentences.append(
            f"{_where(rows[0], comparison)}, {len(others)} of {len(rows)} pairs of methods do not "
            f"differ significantly. With 80% power this design would detect differences of "
            f"{min(detectable):.2f} to {max(detectable):.2f} {score_unit(comparison.judge)}."
        )
    return sentences


def _where(row: Mapping[str, Any], comparison: Comparison) -> str:
    if row["at"] == "matched" and comparison.budget:
        return f"At a matched budget ({comparison.budget.text})"
    return "At the end of training" if comparison.has_path else "On these prompts"


def score_unit(scorer: str) -> str:
    """Return the unit of a scorer's differences, in words."""
    return _UNITS.get(scorer, f"points of {scorer}")


def _contrast_sentence(
    row: Mapping[str, Any], comparison: Comparison, titles: Mapping[str, str]
) -> str:
    a, b = titles[row["a"]], titles[row["b"]]
    where, unit = _where(row, comparison), score_unit(row["scorer"])
    interval = f"{comparison.confidence:.0%} interval {row['low']:+.2f} to {row['high']:+.2f}"
    p = f"p {_p(row['p_adjusted'])} after Holm's correction"
    if row["p_adjusted"] < 1 - comparison.confidence:
        better, worse = (a, b) if row["difference"] > 0 else (b, a)
        return (
            f"{where}, {better} is significantly better than {worse}, by "
            f"{abs(row['difference']):.2f} {unit} ({a} − {b}: {interval}; {p})."
        )
    return (
        f"{where}, these data do not show a significant difference between {a} and {b}: {a} − {b} "
        f"is {row['difference']:+.2f} {unit} ({interval}; {p}). With 80% power this design would "
        f"detect a difference of {row['detectable']:.2f}; a smaller one may exist."
    )


def _win_sentence(
    method: str, rate: Mapping[str, Any], comparison: Comparison, title: str, baseline: str
) -> str:
    over = "seeds and prompts" if len(comparison.groups[method]) > 1 else "prompts"
    interval = f"{comparison.confidence:.0%} interval {rate['low']:.0%} to {rate['high']:.0%}"
    if rate["low"] > 0.5:
        verb, share = "wins against", rate["win_rate"]
    elif rate["high"] < 0.5:
        verb, share = "loses to", 1 - rate["win_rate"]
    else:
        return (
            f"{title} does not differ significantly from {baseline}: it wins on "
            f"{rate['win_rate']:.0%} of prompts ({interval})."
        )
    return (
        f"{title} {verb} {baseline} on {share:.0%} of prompts (win rate: {interval}, over {over})."
    )


def _limits(comparison: Comparison) -> str:
    counts = {len(group) for group in comparison.groups.values()}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    prompts = len(comparison.comparable.prompts)
    if comparison.of_models:
        scope = f"The intervals cover other prompts like these {prompts}, for these very models."
        return f"{scope} {_judge_limit(comparison)}"
    scope = (
        "With one seed per method, the intervals cover other prompts but not other training seeds."
        if max(counts) == 1
        else f"The intervals cover other prompts like these {prompts} "
        f"and other training seeds like these {seeds} per method."
    )
    return f"{scope} {_judge_limit(comparison)}"


def _judge_limit(comparison: Comparison) -> str:
    if not comparison.judge_is_true:
        noun = "model" if comparison.of_models else "method"
        return (
            f"The judge is {comparison.judge}. A {noun} may have been trained against it, and "
            "these data do not show what people would prefer."
        )
    if comparison.of_models:
        return "They do not cover other prompts than those of this world."
    return "They do not cover another base model, reward model or set of preferences."


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
