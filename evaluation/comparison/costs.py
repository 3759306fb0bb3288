"""What a training run cost: time, energy and money.

Energy is measured where the machine counts it, and otherwise an estimate (`energy`), or time at a
stated power. Money is time at a stated price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from evaluation.comparison.energy import JOULES_PER_KWH, Energy
from evaluation.comparison.training_runs import COSTS, TrainingRun
from plumbline.config import Config, only_when

_HOUR = 3600.0


class PriceConfig(Config):
    """What time and energy cost, for the page of a comparison."""

    price_per_hour: float | None = Field(None, gt=0)
    """Price of the machine per hour. Null: no money is shown."""
    currency: str = only_when(
        lambda config: config.price_per_hour is not None,
        "price_per_hour",
        "$",
        min_length=1,
        max_length=8,
    )
    """Sign of the currency."""
    watts: float | None = Field(None, gt=0)
    """Power of the machine, for the energy where the machine does not count it. Null: 10 watts per
    busy processor core, and no estimate for GPUs."""


def mean_costs(
    groups: Mapping[str, Sequence[TrainingRun]], prices: PriceConfig | None = None
) -> list[dict[str, Any]]:
    """Return the costs of each method, as means over its seeds."""
    prices = prices or PriceConfig()
    rows = []
    for method, group in groups.items():
        row: dict[str, Any] = {"method": method}
        for name in COSTS:
            row[name] = _mean([run.final.costs.get(name) for run in group])
        row["memory"] = _mean([run.peak_memory for run in group])
        energies = [_energy(run, prices) for run in group]
        known = [energy for energy in energies if energy is not None]
        row["energy"] = _mean([energy.kwh for energy in known])
        row["energy_is_measured"] = bool(known) and all(energy.is_measured for energy in known)
        row["money"] = None
        if prices.price_per_hour is not None and row["seconds"] is not None:
            row["money"] = row["seconds"] / _HOUR * prices.price_per_hour
        rows.append(row)
    return rows


def _energy(run: TrainingRun, prices: PriceConfig) -> Energy | None:
    """Return the energy of a run as it is known, or at the power that the user states."""
    if run.energy is not None and (run.energy.is_measured or prices.watts is None):
        return run.energy
    seconds = run.final.costs.get("seconds")
    if prices.watts is None or seconds is None:
        return None
    return Energy(prices.watts * seconds / JOULES_PER_KWH, False)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None
