"""Warnings that a policy games its reward: shown while it trains, and never decided on.

Each compares the last rounds with the first ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from rl.config import GuardConfig

#: The metrics of a round that are compared, beside those of watched scorers.
COMPARED = ("score", "tokens", "entropy", "repetition")


def repetition(ids: Sequence[int], policy_mask: Sequence[bool] | None = None, n: int = 4) -> float:
    """Return the share of a response's n-grams that it has had before; 0 where it has none.

    1 - distinct / all (Welleck et al., 2020, "seq-rep-n"). ``policy_mask``: which tokens are the
    policy's; n-grams with any other are left out.
    """
    places = range(len(ids) - n + 1)
    grams = [
        tuple(ids[i : i + n]) for i in places if policy_mask is None or all(policy_mask[i : i + n])
    ]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def reward_hacking_warnings(
    history: Sequence[Mapping[str, float]], config: GuardConfig
) -> dict[str, str]:
    """Return what the metrics of all rounds so far warn of, by name, as sentences.

    Compares the means over the first and the last ``window`` rounds, which must not overlap.
    """
    window = config.window
    if len(history) < 2 * window:
        return {}
    first = _means(history[:window])
    last = _means(history[-window:])
    warnings: dict[str, str] = {}
    # A round that nothing was learnt from has fewer metrics.
    last = {name: value for name, value in last.items() if name in first}
    if "tokens" in last and first["tokens"] > 0:
        times = last["tokens"] / first["tokens"]
        if times >= config.length_drift or times <= 1 / config.length_drift:
            warnings["length"] = (
                f"responses have {last['tokens']:.0f} tokens, {times:.1f} times as many as the "
                f"{first['tokens']:.0f} at the start"
            )
    if last.get("repetition", 0.0) - first.get("repetition", 0.0) > config.repetition:
        warnings["repetition"] = (
            f"{last['repetition']:.0%} of the 4-grams repeat one before them, "
            f"{first['repetition']:.0%} at the start"
        )
    if "entropy" in last and last["entropy"] < config.entropy_collapse * first["entropy"]:
        warnings["entropy"] = (
            f"the entropy is {last['entropy']:.3f} nats per token, {first['entropy']:.3f} at the "
            "start: the policy says nearly always the same"
        )
    for name in last:
        if not name.startswith("watched/"):
            continue
        if last[name] < first[name] and last["score"] > first["score"]:
            warnings[name] = (
                f"the score rose from {first['score']:.2f} to {last['score']:.2f} while "
                f"{name.removeprefix('watched/')}, which is not trained on, fell from "
                f"{first[name]:.2f} to {last[name]:.2f}"
            )
    return warnings


def _means(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the rounds that have it."""
    names = sorted(set().union(*lines))
    return {name: fmean(line[name] for line in lines if name in line) for name in names}
