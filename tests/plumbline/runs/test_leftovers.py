"""What stopped stages leave: listed with the reason to keep it, and deleted where there is none."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock

from plumbline.commands.app import main
from plumbline.config import Config
from plumbline.runs.leftovers import delete, leftovers
from plumbline.runs.run import Run
from plumbline.runs.stage import stage


class StoppedError(Exception):
    """Stands for a kill in the middle of a stage."""


@stage("sum")
def add_up(stage, *, upto, stops):
    checkpoint = stage.checkpoints.load() or {"step": 0, "metrics": 0}
    for step in range(checkpoint["step"], upto):
        stage.checkpoints.save(step, {"step": step + 1, "metrics": 0})
        if step >= 1 and Path(stops).exists():
            raise StoppedError
    return {"sum": float(upto)}


@pytest.fixture
def stops(tmp_path):
    file = tmp_path / "stops"
    file.touch()
    return file


def attempt(home, name, stops, upto):
    """Run a recipe of one stage; return the id of what it makes."""
    run = Run(home, name, "test", Config(), isolate=False)
    try:
        run.make("add", add_up, upto=upto, stops=str(stops))
    except StoppedError:
        run.fail("failed", "stopped")
        return run._state["making"]
    run.finish({})
    return run.stages["add"].id


def clean(home, *arguments):
    """Give the command; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["clean", *arguments, "--home", str(home)])
    return ended.value.code


def kept(home):
    return {left.id: left.kept for left in leftovers(home)}


def test_what_the_same_command_resumes_is_kept_and_what_nothing_resumes_is_deleted(
    tmp_path, stops, capsys
):
    home = tmp_path / "runs"
    first = attempt(home, "mine", stops, 3)
    assert kept(home) == {first: "its run may resume it"}
    second = attempt(home, "mine", stops, 4)  # with another setting
    assert kept(home) == {first: None, second: "its run may resume it"}
    (home / "store" / ".partial" / first / "out" / "weights").write_bytes(bytes(5 << 20))

    assert clean(home) == 0
    listed = capsys.readouterr().out
    assert first in listed and "mine/add" in listed and "nothing resumes it" in listed
    assert "--delete frees 5.0 MiB." in listed
    assert set(kept(home)) == {first, second}  # nothing goes without the flag

    assert clean(home, "--delete") == 0
    said = capsys.readouterr().out
    assert f"{first} is deleted." in said and "5.0 MiB are free again. 1 stay" in said
    assert set(kept(home)) == {second}
    stops.unlink()
    assert attempt(home, "mine", stops, 4) == second  # and it was resumed
    assert kept(home) == {}


def test_what_a_finished_stage_left_with_other_settings_is_resumed_by_nothing(tmp_path, stops):
    left = attempt(tmp_path / "runs", "mine", stops, 3)
    stops.unlink()
    attempt(tmp_path / "runs", "mine", stops, 4)
    assert kept(tmp_path / "runs") == {left: None}


def test_two_runs_that_left_the_same_keep_it_for_each_other(tmp_path, stops):
    home = tmp_path / "runs"
    shared = attempt(home, "mine", stops, 3)
    attempt(home, "yours", stops, 3)  # its title is now that of yours
    attempt(home, "yours", stops, 4)
    assert kept(home)[shared] == "its run may resume it"


def test_what_is_in_use_is_never_deleted(tmp_path, stops, capsys):
    home = tmp_path / "runs"
    left = attempt(home, "mine", stops, 3)
    attempt(home, "mine", stops, 4)
    with FileLock(home / "store" / ".partial" / f"{left}.lock"):
        assert kept(home)[left] == "it is being made"
        (found,) = [each for each in leftovers(home) if each.id == left]
        assert not delete(found)
        assert clean(home, left, "--delete") == 6
        assert "cannot be deleted: it is being made" in capsys.readouterr().err
    Run(home, "mine", "test", Config(), isolate=False)  # this process is alive
    assert kept(home)[left] == "the run mine is in progress"
    assert clean(home, "--delete") == 0
    assert left in kept(home)


def test_one_of_an_unknown_run_is_deleted_by_its_id_alone(tmp_path, stops, capsys):
    home = tmp_path / "runs"
    left = attempt(home, "mine", stops, 3)
    (home / "mine" / "run.json").unlink()
    assert clean(home, "--delete") == 0
    assert kept(home) == {left: "its run is not known, and the command that began it may resume it"}
    assert clean(home, "nothing-such", "--delete") == 5
    assert "Nothing is left of 'nothing-such'" in capsys.readouterr().err
    assert clean(home, left[:-2], "--delete") == 0
    assert kept(home) == {}
    assert clean(home) == 0
    assert "left nothing" in capsys.readouterr().out


def test_one_whose_deletion_was_killed_is_deleted_the_next_time(tmp_path, stops):
    home = tmp_path / "runs"
    left = attempt(home, "mine", stops, 3)
    folder = home / "store" / ".partial" / left
    folder.rename(folder.with_name(f".deleted-{left}"))
    assert kept(home) == {left: None}
    assert clean(home, "--delete") == 0
    assert kept(home) == {}


def test_an_old_one_is_deleted_by_its_age(tmp_path, stops):
    home = tmp_path / "runs"
    left = attempt(home, "mine", stops, 3)
    day = 86400.0
    folder = home / "store" / ".partial" / left
    for file in (folder, folder / "clock.json"):
        if file.exists():
            os.utime(file, (time.time() - 3 * day,) * 2)
    assert clean(home, "--delete", "--older-than", "4") == 0
    assert kept(home) == {left: "its run may resume it"}
    assert clean(home, "--delete", "--older-than", "2") == 0
    assert kept(home) == {}


def test_a_checkpoint_that_goes_while_files_are_listed_is_not_missed(tmp_path, stops, monkeypatch):
    """A stage that runs deletes its old ones."""
    home = tmp_path / "runs"
    left = attempt(home, "mine", stops, 3)
    scandir = os.scandir

    def go(folder):
        if Path(folder).name.startswith("step-"):
            monkeypatch.setattr(os, "scandir", scandir)
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", go)
    assert kept(home) == {left: "its run may resume it"}
    assert os.scandir is scandir  # it went
