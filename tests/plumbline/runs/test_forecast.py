"""How long a run takes: from the earlier run that is most like it, and from a stage's own steps."""

from __future__ import annotations

import json
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from plumbline.config import Config
from plumbline.runs import progress
from plumbline.runs.artifacts import MANIFEST
from plumbline.runs.forecast import Forecast, forecast
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run, flat_settings
from plumbline.runs.stage import Stage, stage


class Settings(Config):
    """Settings of a run in these tests."""

    size: int = 1
    words: str = "none"


@stage("test")
def make_nothing(stage: Stage, *, size: int, seed: int) -> dict[str, float]:
    """Make an artefact with nothing in it."""
    return {}


def run_once(home, name: str, settings: Settings, seconds: dict[str, float], **state) -> None:
    run = Run(home, name, "recipe", settings, isolate=False)
    for number, (stage_name, value) in enumerate(seconds.items()):
        made = run.make(stage_name, make_nothing, size=getattr(settings, "size", 1), seed=number)
        file = made.path / MANIFEST
        file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": value}))
    run.finish({})


def of(home, settings: Settings) -> Forecast | None:
    return forecast(home, "recipe", flat_settings(settings.model_dump()))


def test_nothing_is_forecast_without_an_earlier_run(tmp_path):
    assert of(tmp_path, Settings()) is None
    Run(tmp_path, "mine", "recipe", Settings(), isolate=False).make(
        "sft", make_nothing, size=1, seed=0
    )
    assert of(tmp_path, Settings()) is None  # it was never finished


def test_what_a_run_took_before_is_known_when_it_begins_again(tmp_path):
    run_once(tmp_path, "mine", Settings(), {"sft": 60.0, "dpo": 30.0})
    for _ in range(2):  # the second attempt is interrupted at its first stage, and so is the third
        run = Run(tmp_path, "mine", "recipe", Settings(size=2, words="few"), isolate=False)
        told = of(tmp_path, Settings(size=2))
        assert (told.run, told.seconds, told.differing) == ("mine", {"sft": 60.0, "dpo": 30.0}, 1)
        run.make("sft", make_nothing, size=2, seed=0)
        run.fail("interrupted", "a test")
    run_once(tmp_path, "mine", Settings(size=2), {"sft": 5.0})
    assert of(tmp_path, Settings(size=2)).seconds == {"sft": 5.0}


def test_a_damaged_config_of_another_run_does_not_stop_this_one(tmp_path):
    run_once(tmp_path, "other", Settings(), {"sft": 60.0})
    (tmp_path / "other" / "config.yaml").write_text("size: [1\n")
    assert of(tmp_path, Settings()) is None


def test_no_time_is_left_to_wait_for_after_a_stage_that_was_made_before(tmp_path):
    run_once(tmp_path, "r", Settings(), {"one": 60.0, "two": 90.0})
    text = StringIO()
    run = Run(tmp_path, "r", "recipe", Settings(), Reporter(Console(file=text)), isolate=False)
    run.expect(of(tmp_path, Settings()).left)
    run.make("one", make_nothing, size=1, seed=0)
    assert "made before" in text.getvalue() and "left" not in text.getvalue()


def test_the_run_with_the_fewest_other_settings_tells(tmp_path):
    run_once(tmp_path, "small", Settings(size=1), {"sft": 60.0, "dpo/seed-0": 120.0})
    run_once(tmp_path, "large", Settings(size=2, words="many"), {"sft": 6000.0})
    told = of(tmp_path, Settings(size=1, words="few"))
    assert told.run == "small" and told.differing == 1
    assert "About 3 min 00 s, as small took with 1 other setting" in told.sentences()[0]
    assert "sft 1 min 00 s, dpo/seed-0 2 min 00 s" in told.sentences()[0]
    assert of(tmp_path, Settings(size=2, words="many")).differing == 0


class OfTraining(Config):
    """Settings of one training."""

    epochs: float = 1.0
    max_steps: int | None = None


class Trainings(Config):
    """Settings of a run that trains."""

    sft: OfTraining = OfTraining()
    ppo: OfTraining = OfTraining()


def test_a_longer_training_is_forecast_to_take_longer(tmp_path):
    """Also where it is the run's own last attempt that was shorter."""
    short = Trainings(ppo=OfTraining(max_steps=20))
    run_once(
        tmp_path, "r", short, {"data": 7.0, "sft": 60.0, "ppo/seed-0": 30.0, "ppo/seed-1": 30.0}
    )
    told = of(tmp_path, Trainings(sft=OfTraining(epochs=3.0), ppo=OfTraining(max_steps=10)))
    assert told.seconds == {"data": 7.0, "sft": 180.0, "ppo/seed-0": 15.0, "ppo/seed-1": 15.0}
    assert told.sentences()[:2] == [
        "About 3 min 37 s, by what r took with 2 other settings: data 7.0 s, sft 3 min 00 s, "
        "ppo/seed-0 15 s, ppo/seed-1 15 s.",
        "It is scaled to the epochs and steps here: times ppo 0.5, sft 3.",
    ]
    assert of(tmp_path, short).scaled == {}


def test_epochs_are_not_known_in_steps(tmp_path):
    run_once(tmp_path, "r", Trainings(), {"sft": 60.0})
    told = of(tmp_path, Trainings(sft=OfTraining(max_steps=10)))
    assert told.seconds == {"sft": 60.0}
    assert told.sentences()[1].startswith("sft: epochs there and steps here")


def test_another_machine_tells_nothing(tmp_path, monkeypatch):
    run_once(tmp_path, "small", Settings(), {"sft": 60.0})
    monkeypatch.setattr("plumbline.runs.forecast.machine", lambda: {"cores": 512})
    assert of(tmp_path, Settings()) is None


def test_what_is_left_counts_stages_of_another_seed(tmp_path):
    told = Forecast("r", {"sft": 10.0, "dpo/seed-0": 100.0, "dpo/seed-1": 200.0}, 0)
    assert told.left([]) == 310
    assert told.left(["sft", "dpo/seed-7"]) == 200
    assert told.left(["sft", "dpo/seed-7", "dpo/seed-8", "other"]) == 0


def test_nothing_is_left_to_tell_after_a_stage_that_the_earlier_run_had_not():
    told = Forecast("r", {"pairs": 100.0, "preferences": 10.0}, 0)
    assert told.left(["ranked"]) == told.left(["ranked", "preferences"]) == 0


class WithSeeds(Config):
    """Settings of a run with several seeds."""

    seeds: tuple[int, ...] = (0, 1)


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ((7,), {"sft": 5.0, "dpo/seed-7": 20.0}),
        ((1, 3), {"sft": 5.0, "dpo/seed-1": 20.0, "dpo/seed-3": 30.0}),
        ((4, 5, 6), {"sft": 5.0, "dpo/seed-4": 20.0, "dpo/seed-5": 30.0, "dpo/seed-6": 20.0}),
    ],
)
def test_a_run_with_more_or_fewer_seeds_takes_longer_or_shorter(tmp_path, seeds, expected):
    run_once(tmp_path, "r", WithSeeds(), {"sft": 5.0, "dpo/seed-0": 20.0, "dpo/seed-1": 30.0})
    assert of(tmp_path, WithSeeds(seeds=seeds)).seconds == expected


def test_a_run_says_what_is_left_after_each_stage(tmp_path):
    text = StringIO()
    run = Run(tmp_path, "r", "recipe", Settings(), Reporter(Console(file=text)), isolate=False)
    run.expect(Forecast("e", {"one": 60.0, "two": 90.0}, 0).left)
    run.make("one", make_nothing, size=1, seed=0)
    assert "about 1 min 30 s left" in text.getvalue()
    run.make("two", make_nothing, size=1, seed=1)
    assert text.getvalue().count("left") == 1


def test_a_line_in_a_log_has_the_time_left(monkeypatch):
    clock = iter([0.0, 0.0, 10.0, 30.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    text = StringIO()
    with Reporter(Console(file=text)).bar("training", 100) as bar:
        bar.update(20)  # resumed here
        bar.update(25)
        bar.update(30)
    assert text.getvalue().splitlines() == [
        "    training 25/100, 2 min 30 s left",
        "    training 30/100, 3 min 30 s left",
    ]


@pytest.mark.parametrize("name", ["a/seed-1", "seed-12"])
def test_a_seed_is_left_out_of_a_name(name):
    from plumbline.runs.forecast import _without_seed

    assert "seed-" not in _without_seed(name)
