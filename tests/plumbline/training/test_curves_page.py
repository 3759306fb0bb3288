"""The page of a run's trainings: figures at their places, healthy ranges, and what is wrong."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from plumbline.training.curves_page import curves_of, points_of, training_page


def test_points_are_read_from_both_files_and_a_repeated_step_counts_once(tmp_path):
    metrics, speed = tmp_path / "metrics.jsonl", tmp_path / "speed.jsonl"
    metrics.write_text(
        '{"step": 10, "loss": 2.0, "grad_norm": null}\n{"step": 20, "loss": 1.0}\n'
        '{"step": 20, "held_out_loss": 1.5}\n{"step": 30, "lo'
    )
    speed.write_text('{"step": 10, "tokens_per_second": 5}\n{"step": 10, "tokens_per_second": 7}\n')
    assert points_of(metrics, speed) == {
        "loss": [(10.0, 2.0), (20.0, 1.0)],
        "held_out_loss": [(20.0, 1.5)],
        "tokens_per_second": [(10.0, 7.0)],
    }
    assert "tokens_per_second" not in points_of(metrics, tmp_path / "absent.jsonl")


def test_a_curve_runs_over_the_whole_plot_and_its_band_is_the_healthy_range():
    (curve,) = curves_of({"held_out_gap": [(0.0, 0.0), (10.0, 0.1), (20.0, 0.4)]})
    assert curve.path == "M52.0,150.0 L232.0,112.5 L412.0,0.0"  # 0.4 at the top, 0 at the bottom
    assert curve.band == pytest.approx((75.0, 75.0))  # up to 0.2, half of the height
    assert curve.problem is not None and "above 0.2" in curve.problem
    (flat,) = curves_of({"loss": [(5.0, 2.0)]})
    assert flat.band is None and flat.problem is None
    assert flat.end == (52.0, 75.0)  # a single value is a point in the middle, not nothing
    assert not re.search("nan|inf", flat.path)


def test_the_page_shows_what_trained_and_loads_itself_while_the_run_is_in_progress(tmp_path):
    record = SimpleNamespace(
        folder=tmp_path / "my-run",
        status="running",
        state={"stage": "sft", "making": "policy-1"},
        artifacts={},
        store=SimpleNamespace(root=tmp_path / "store"),
    )
    out = tmp_path / "store" / ".partial" / "policy-1" / "out"
    out.mkdir(parents=True)
    (out / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5, "held_out_gap": 0.9}\n')
    page = training_page(record)
    assert "<h2>sft</h2>" in page and "loss: 2.5" in page and "learns its rows by heart" in page
    assert 'http-equiv="refresh"' in page and "<script" not in page
    assert '<circle cx="52.0" cy="75.0"' in page
    record.status = "finished"
    assert 'http-equiv="refresh"' not in training_page(record)
    (out / "metrics.jsonl").write_text("")
    assert "one of a few steps writes none" in training_page(record)
