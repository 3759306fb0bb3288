"""Trackers get what metrics.jsonl gets, from every stage; a missing one is said before the run."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from plumbline.errors import ConfigError
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.run import flat_settings
from plumbline.runs.stage import Stage
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


def test_a_tracker_gets_what_is_measured_after_the_training_too(stage, recorder):
    with pytest.raises(ValueError, match="broken"), stage:
        stage.until_end(trackers.tracking(stage, ["recorder"], {}))
        stage.metrics.log(9, {"held_out_loss": 0.5})
        raise ValueError("broken")
    assert recorder[1:] == [(9, {"held_out_loss": 0.5}), "end"]


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


def wandb_records(file: Path) -> list:
    """Return the records of an offline run: a log in LevelDB's format, of protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts, records = file.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:  # too short for a header: the block is filled up
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            records.append(Record.FromString(parts))
            parts = b""
    return records


def test_wandb_has_a_run_of_its_own_for_each_stage(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for number in (1, 2):  # in one process, as in a notebook
        stage = Stage(tmp_path / f"stage-{number}", Reporter(quiet=True))
        with trackers.tracking(stage, ["wandb"], {"beta": 0.1}):
            for step in (1, 2):
                stage.metrics.log(step, {"objective/kl": step * number})
        assert wandb.run is None
        (file,) = (stage.tracker_folder / "wandb").glob("offline-run-*/run-*.wandb")
        records = wandb_records(file)
        (opened,) = {record.run.run_id for record in records if record.HasField("run")}
        assert opened == stage.id
        lines = [
            {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            for record in records
            if record.HasField("history")
        ]
        steps = [(line["train/global_step"], line["train/objective/kl"]) for line in lines]
        assert [(int(step), int(kl)) for step, kl in steps] == [(1, number), (2, 2 * number)]
        assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]


def test_wandb_without_a_login_is_said_before_the_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it reads its settings once
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match=r"^report_to names.*wandb login.*WANDB_MODE=offline"):
        trackers.check_trackers(PPOConfig(report_to=("wandb",)))


def test_a_tracker_that_does_not_start_is_named(stage, monkeypatch):
    class Unreachable(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            raise OSError("no server at port 1")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "far", Unreachable)
    with (
        pytest.raises(ConfigError, match=r"'far' did not start: no server.*leave far out"),
        trackers.tracking(stage, ["far"], {}),
    ):
        pass


def test_what_is_not_there_is_said_before_the_run():
    wrong = TrainingConfig(report_to=("wandbb",))
    with pytest.raises(ConfigError, match=r"training\.report_to names 'wandbb'.*'wandb'"):
        trackers.check_trackers(SFTConfig(training=wrong))
    trackers.check_trackers(PPOConfig())


def test_a_tracker_that_needs_more_than_a_package_says_it_in_its_own_words(monkeypatch):
    monkeypatch.delenv("KUBEFLOW_TRAINER_SERVER_URL", raising=False)
    with pytest.raises(ConfigError, match=r"cannot start: .*KUBEFLOW_TRAINER_SERVER_URL"):
        trackers.check_trackers(PPOConfig(report_to=("kubeflow",)))


@pytest.mark.parametrize(
    "name", sorted(set(integration_utils.INTEGRATION_TO_CALLBACK) - {"kubeflow"})
)
def test_a_missing_tracker_is_said_with_what_installs_it(name, monkeypatch):
    for function in dir(integration_utils):
        if function.startswith("is_") and function.endswith("_available"):
            monkeypatch.setattr(integration_utils, function, lambda: False)
    with pytest.raises(ConfigError, match=rf"^report_to names '{name}'") as refused:
        trackers.check_trackers(PPOConfig(report_to=(name,)))
    package = {
        "tensorboard": "'plumbline-rlhf[tensorboard]'", "wandb": "'plumbline-rlhf[wandb]'",
        "azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "dagshub": "dagshub mlflow",
        "flyte": "flytekit",
    }.get(name, name)  # fmt: skip
    assert f"pip install {package}, or leave {name} out." in str(refused.value)


def test_settings_of_ppo_are_plain():
    flat = flat_settings(PPOConfig().identity())
    assert flat["kl.coefficient"] == "0.05" and "report_to" not in flat
