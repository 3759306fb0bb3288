"""What is watched while a model trains: measured right, and warned of once."""

from __future__ import annotations

import json

import pytest
import torch

from plumbline.runs.stage import SPEED
from plumbline.training.health import WATCHED_FIGURES, HealthReport
from plumbline.training.monitor import update_ratio


def test_the_size_of_an_update_is_worked_by_hand():
    # |(3, 0, 4)| = 5 moved by |(0, 0.3, 0.4)| = 0.5.
    before = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    after = [torch.tensor([3.0, 0.3]), torch.tensor([4.4])]
    assert update_ratio(before, after) == pytest.approx(0.1)
    zero = [torch.zeros(2)]
    assert update_ratio(zero, [torch.ones(2)]) == 0.0
    with pytest.raises(ValueError):
        update_ratio(before, after[:1])


def test_each_figure_that_leaves_its_range_is_warned_of_once():
    health = HealthReport()
    healthy = {"loss": 2.0, "grad_norm": 1.0, "update_ratio": 1e-3, "held_out_gap": 0.1}
    assert list(health.warnings(healthy)) == []
    ((name, sentence),) = health.warnings(healthy | {"held_out_gap": 0.3})
    assert name == "held_out_gap" and "0.3, above 0.2" in sentence
    assert list(health.warnings(healthy | {"held_out_gap": 0.5})) == []
    assert [n for n, _ in health.warnings({"loss": float("nan"), "grad_norm": 1e-5})] == [
        "loss",
        "grad_norm",
    ]


def test_small_updates_at_the_end_of_a_schedule_are_as_they_should_be():
    health, small = HealthReport(), {"update_ratio": 1e-8}
    assert list(health.warnings(small | {"learning_rate": 9e-6}, 1e-4)) == []
    assert list(health.warnings(small | {"learning_rate": 0.0}, 1e-4)) == []  # where it warms up
    ((name, sentence),) = health.warnings(small | {"learning_rate": 2e-5}, 1e-4)
    assert name == "update_ratio" and "Raise the learning rate" in sentence


def test_every_limit_says_what_to_do():
    for figure in WATCHED_FIGURES.values():
        assert bool(figure.below) == (figure.low is not None)
        assert bool(figure.above) == (figure.high is not None)


def test_speed_goes_to_trackers_and_beside_the_run_and_not_into_the_artefact(stage):
    heard = []
    with stage.listening(lambda step, values: heard.append((step, dict(values)))):
        stage.log_speed(3, {"tokens_per_second": 5.0})
    (line,) = (stage.tracker_folder / SPEED).read_text().splitlines()
    assert json.loads(line) == {"step": 3, "tokens_per_second": 5.0}
    assert heard == [(3, {"tokens_per_second": 5.0})]
    assert not (stage.folder / SPEED).exists()
