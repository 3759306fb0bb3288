"""Energy by the machine's counters: what a stage took, and nothing where there are none."""

from __future__ import annotations

from plumbline.runs import energy
from plumbline.runs.energy import EnergyMeter


def counters(folder, **packages):
    for name, (now, largest) in packages.items():
        package = folder / name.replace("_", ":").replace("rapl:", "intel-rapl:")
        package.mkdir(parents=True, exist_ok=True)
        (package / "energy_uj").write_text(f"{now}\n")
        (package / "max_energy_range_uj").write_text(f"{largest}\n")


def test_joules_of_all_packages_are_counted_once(tmp_path):
    counters(tmp_path, rapl_0=(1_000_000, 10**9), rapl_1=(2_000_000, 10**9), rapl_0_0=(5, 10**9))
    meter = EnergyMeter(tmp_path)
    counters(tmp_path, rapl_0=(4_000_000, 10**9), rapl_1=(2_500_000, 10**9), rapl_0_0=(9, 10**9))
    found = meter.reading()
    assert found["energy"]["joules"] == 3.5 and "processors" in found["energy"]["of"]
    assert found["processor_seconds"] > 0


def test_a_counter_that_starts_anew_is_read_on(tmp_path):
    counters(tmp_path, rapl_0=(9_000_000, 10_000_000))
    meter = EnergyMeter(tmp_path)
    counters(tmp_path, rapl_0=(1_000_000, 10_000_000))
    assert meter.reading()["energy"]["joules"] == 2.0


def test_without_counters_there_is_no_energy(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "_nvml_counters", dict)
    assert "energy" not in EnergyMeter(tmp_path / "none").reading()
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("locked")
    assert "energy" not in EnergyMeter(tmp_path).reading()
