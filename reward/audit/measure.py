"""The measurements of an audit, each on scores that are known already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from plumbline.data.records import prompt_id
from plumbline.errors import DataError
from plumbline.seeds import derive, rng
from plumbline.statistics.crossed_effects import Floats
from reward.audit.biases import accuracy_by_length, find_biases, order_effect
from reward.audit.config import AuditConfig
from reward.audit.data import AuditPair
from reward.audit.label_problems import contradictions, suspicious_labels
from reward.audit.languages import language_of
from reward.audit.measured import Calibrated, Measured
from reward.audit.pair_calibration import pair_calibration, probabilities
from reward.audit.people import agreement
from reward.audit.reward_bench import is_bench_1, score_1
from reward.audit.shares import pair_points, share_of, weak_subsets
from reward.audit.traits import LENGTH, TRAITS
from reward.temperature import fit_temperature

#: Subsets with fewer pairs are not shown by themselves.
_FEWEST_IN_A_SUBSET = 10


def measure_pairs(
    pairs: Sequence[AuditPair],
    chosen: Sequence[float],
    rejected: Sequence[float],
    config: AuditConfig,
    temperature: float,
    seed: int,
) -> Measured:
    """Return what pairs with their scores [N] show about a model.

    ``temperature`` is the one that the model has. Raises `DataError` where every score is equal.
    """
    scores = np.array([*chosen, *rejected], dtype=np.float64)
    std = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    if std == 0:
        raise DataError(
            f"The scorer gives all {len(scores)} responses one score, so there is nothing to "
            "audit. Was it trained?"
        )
    margins = np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64)
    is_decided = np.array([pair.is_decided for pair in pairs])
    decided = [pair for pair in pairs if pair.is_decided]
    own = margins[is_decided]
    measured = Measured(len(pairs), len(decided), std, 0)
    if decided:
        _accuracies(measured, decided, own)
        _biases(measured, decided, own / std, config)
        measured.calibration = _calibration(decided, own, temperature, seed)
        measured.contradictions = contradictions(
            [prompt_id(pair.prompt) for pair in decided],
            [pair.chosen for pair in decided],
            [pair.rejected for pair in decided],
        )
        if is_bench_1([pair.subset for pair in decided]):
            right = [c for c, keep in zip(chosen, is_decided, strict=True) if keep]
            wrong = [r for r, keep in zip(rejected, is_decided, strict=True) if keep]
            rows = zip([str(pair.subset) for pair in decided], right, wrong, strict=True)
            measured.benchmarks.append(score_1(list(rows)))
        measured.suspicious = suspicious_labels(sure_of_labels(measured, own))
    votes = [pair.votes for pair in pairs]
    if any(votes):
        measured.people = agreement(
            votes, margins.tolist(), max(map(len, votes)), derive(seed, "agreement")
        )
    orders = [(m, *o) for pair, m in zip(pairs, margins, strict=True) for o in pair.orders]
    measured.order = order_effect(
        [m / std if for_chosen else -m / std for m, for_chosen, _ in orders],
        [first for _, _, first in orders],
    )
    return measured


def sure_of_labels(measured: Measured, margins: Floats) -> Floats:
    """Return the calibrated probability of each label, [N]."""
    calibration = measured.calibration
    fitted = None if calibration is None else calibration.temperature
    # Without a best temperature the model's own is taken; its scale is all that is known.
    return probabilities(margins, fitted or measured.std)


def _accuracies(measured: Measured, pairs: Sequence[AuditPair], margins: Floats) -> None:
    points = pair_points(margins.tolist())
    measured.accuracy = share_of(points)
    groups: dict[str, list[float]] = defaultdict(list)
    languages: dict[str, list[float]] = defaultdict(list)
    for pair, point in zip(pairs, points, strict=True):
        if pair.subset is not None:
            groups[pair.subset].append(point)
        languages[language_of(pair.chosen)].append(point)
    measured.by_subset = {
        name: share_of(group)
        for name, group in sorted(groups.items())
        if len(group) >= _FEWEST_IN_A_SUBSET
    }
    measured.by_language = {
        name: share_of(group)
        for name, group in sorted(languages.items(), key=lambda item: -len(item[1]))
        if len(group) >= _FEWEST_IN_A_SUBSET
    }
    measured.weak = weak_subsets(
        {name: groups[name] for name in measured.by_subset},
        {f"language: {name}": languages[name] for name in measured.by_language},
    )


def _biases(
    measured: Measured, pairs: Sequence[AuditPair], margins: Floats, config: AuditConfig
) -> None:
    differences = {
        trait.name: [trait.value(pair.chosen) - trait.value(pair.rejected) for pair in pairs]
        for trait in TRAITS.values()
    }
    own = config.own_model
    if own is not None:
        named = [
            tuple(float(own.casefold() in name.casefold()) for name in pair.models or ("", ""))
            for pair in pairs
        ]
        differences["own"] = [chosen - rejected for chosen, rejected in named]
    measured.biases = find_biases(margins, differences, config.alpha)
    measured.by_length = accuracy_by_length(margins.tolist(), differences[LENGTH])


def _calibration(
    pairs: Sequence[AuditPair], margins: Floats, temperature: float, seed: int
) -> Calibrated:
    """Return the calibration on one half of the prompts, at the temperature of the other half."""
    first = np.array(
        [rng(seed, "temperature", prompt_id(pair.prompt)).random() < 0.5 for pair in pairs]
    )
    fitted = fit_temperature(margins[first]) if first.any() else None
    held_out = margins[~first] if (~first).any() else margins
    return Calibrated(
        pair_calibration(held_out, temperature),
        None if fitted is None else pair_calibration(held_out, fitted),
        fit_temperature(margins),
    )


def drawn(pairs: Sequence[AuditPair], most: int, seed: int) -> list[AuditPair]:
    """Return at most so many pairs, drawn at random, in their order."""
    if len(pairs) <= most:
        return list(pairs)
    numbers = rng(seed, "pairs of the audit").sample(range(len(pairs)), most)
    return [pairs[number] for number in sorted(numbers)]
