"""Time, energy and money: measured where the machine counts, otherwise said to be an estimate."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from evaluation.comparison.costs import PriceConfig, mean_costs
from evaluation.comparison.energy import Energy, energy_of


def manifest(seconds=100.0, **machine):
    return SimpleNamespace(seconds=seconds, machine=machine)


def test_counted_energy_is_measured():
    counted = {"joules": 3.6e5, "seconds": 100.0, "of": ["processors"]}
    assert energy_of(manifest(energy=counted, device="cpu")) == Energy(0.1, True)
    # A stage that was resumed: its last attempt took half of the time.
    assert energy_of(manifest(200.0, energy=counted, device="cpu")) == Energy(0.2, True)


def test_on_a_gpu_the_processors_alone_say_nothing():
    counted = {"joules": 3.6e5, "seconds": 100.0, "of": ["processors"]}
    assert energy_of(manifest(energy=counted, device="H100")) is None
    both = counted | {"of": ["processors", "GPUs"]}
    assert energy_of(manifest(energy=both, device="H100")).is_measured


def test_without_a_counter_it_is_an_estimate_from_processor_time():
    assert energy_of(manifest(processor_seconds=360.0, device="cpu")) == Energy(0.001, False)
    old = energy_of(manifest(threads=2, device="cpu"))  # a manifest of an older version
    assert old == Energy(pytest.approx(100 * 2 * 10 / 3.6e6), False)


def test_means_over_seeds_with_money_at_a_price(make_training):
    runs = [replace(make_training("a", seed), energy=Energy(0.2, True)) for seed in (0, 1)]
    (row,) = mean_costs({"a": runs}, PriceConfig(price_per_hour=36.0))
    assert row["seconds"] == 10.0 and row["money"] == pytest.approx(0.1)
    assert row["energy"] == pytest.approx(0.2) and row["energy_is_measured"]
    (free,) = mean_costs({"a": runs})
    assert free["money"] is None


def test_a_stated_power_takes_the_place_of_an_estimate_only(make_training):
    prices = PriceConfig(watts=360.0)
    measured = replace(make_training("a"), energy=Energy(0.2, True))
    guessed = replace(make_training("a"), energy=Energy(0.2, False))
    unknown = make_training("a")
    for run, expected, is_measured in (
        (measured, 0.2, True), (guessed, 0.001, False), (unknown, 0.001, False),
    ):  # fmt: skip
        (row,) = mean_costs({"a": [run]}, prices)
        assert row["energy"] == pytest.approx(expected)
        assert row["energy_is_measured"] is is_measured


def test_a_currency_without_a_price_is_refused():
    with pytest.raises(ValueError, match="has no effect"):
        PriceConfig(currency="€")
