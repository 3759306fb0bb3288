"""Trackers get what metrics.jsonl gets, from every stage; a missing one is said before the run."""

from __future__ import annotations

import os

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from plumbline.errors import ConfigError
from plumbline.runs.metrics import read_metrics
from plumbline.runs.run import flat_settings
from plumbline.training import trackers
from plumbline.training.config import TrainingConfig
from rl.config import PPOConfig
from sft.config import SFTConfig


class Recorder(TrainerCallback):
    """A tracker that keeps what it gets."""

    calls: list = []  # noqa: RUF012

    def on_train_begin(self, args, state, control, **_):
        self.calls.append(("begin", args.to_dict(), args.run_name, os.environ["WANDB_RUN_ID"]))

    def on_log(self, args, state, control, logs=None, **_):
        self.calls.append((state.global_step, logs))

    def on_train_end(self, args, state, control, **_):
        self.calls.append("end")


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "calls", [])
    return Recorder.calls


def test_a_tracker_gets_the_lines_and_the_settings(stage, recorder):
    stage.metrics.log(0, {"before": 1.0})
    with trackers.tracking(stage, ["recorder"], {"beta": 0.1}):
        stage.metrics.log(3, {"loss": 0.5, "missing": float("nan"), "word": "x"})
    stage.metrics.log(4, {"after": 1.0})
    begin, line, end = recorder
    assert begin == ("begin", {"beta": 0.1}, stage.title, stage.id)
    assert line == (3, {"loss": 0.5}) and end == "end"
    assert len(read_metrics(stage.metrics.path)) == 3
    assert "WANDB_RUN_ID" not in os.environ


def test_a_tracker_leaves_accelerate_as_it_is(stage, recorder):
    from accelerate import Accelerator

    accelerator = Accelerator()
    with trackers.tracking(stage, ["recorder"], {}):
        assert accelerator.state.distributed_type is not None


def test_a_tracker_ends_where_training_fails(stage, recorder):
    with (
        pytest.raises(ValueError, match="broken"),
        trackers.tracking(stage, ["recorder"], {}),
    ):
        raise ValueError("broken")
    assert recorder[-1] == "end"


def test_tensorboard_writes_beside_the_run(stage):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with trackers.tracking(stage, ["tensorboard"], {"beta": 0.1}):
        for step in (1, 2):
            stage.metrics.log(step, {"score": step / 2})
    events = EventAccumulator(str(stage.tracker_folder)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/score")] == [(1, 0.5), (2, 1.0)]


def test_what_is_not_there_is_said_before_the_run(monkeypatch):
    wrong = TrainingConfig(report_to=("wandbb",))
    with pytest.raises(ConfigError, match=r"sft\.report_to|report_to names 'wandbb'.*'wandb'"):
        trackers.check_trackers(SFTConfig(training=wrong))
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install 'plumbline-rlhf\[wandb\]'"):
        trackers.check_trackers(PPOConfig(report_to=("wandb",)))
    trackers.check_trackers(PPOConfig())


def test_settings_of_ppo_are_plain():
    flat = flat_settings(PPOConfig().identity())
    assert flat["kl.coefficient"] == "0.05" and "report_to" not in flat
