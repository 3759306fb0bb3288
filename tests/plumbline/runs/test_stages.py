"""Stages and runs: what is done once is not done again, and a changed input makes anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from plumbline.config import Config, not_in_identity
from plumbline.errors import ArtifactError, BusyError, DataError
from plumbline.runs.artifacts import Artifact, Store
from plumbline.runs.calls import SourceFile, defer
from plumbline.runs.isolation import StageDiedError, StageFailedError
from plumbline.runs.run import Run, RunRecord, all_runs
from plumbline.runs.stage import stage


class Knobs(Config):
    """Knobs."""

    times: int = 2
    """How often."""
    workers: int = not_in_identity(1)
    """By how many."""


def numbers(count: int) -> list[int]:
    return list(range(count))


@stage("text")
def write_text(stage, *, config, values, file, seed):
    """A stage that counts, in a file, how often it truly ran."""
    text = f"{config.times} {sum(values)} {file.path.read_text()} {seed}"
    (stage.folder / "text.txt").write_text(text)
    stage.metrics.log(1, {"length": len(text)})
    return {"length": float(len(text))}


@stage("copy")
def copy_text(stage, *, source):
    (stage.folder / "copy.txt").write_text((source.path / "text.txt").read_text())
    return {}


@stage("broken")
def break_down(stage, *, how):
    if how == "data":
        raise DataError("row 3 is empty")
    if how == "bug":
        raise ZeroDivisionError("by nought")
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def make(tmp_path):
    source = tmp_path / "source.txt"
    source.write_text("hello")

    def go(name: str = "run", **changes):
        run = Run(tmp_path / "home", name, "test", Knobs(), isolate=False)
        arguments = {
            "config": Knobs(),
            "values": defer(numbers, count=3),
            "file": SourceFile(source),
            "seed": 0,
        } | changes
        return run, run.make("text", write_text, **arguments)

    return go


def test_an_artifact_is_whole_and_says_what_it_is(make):
    run, made = make()
    assert (made.path / "text.txt").read_text() == "2 3 hello 0"
    assert made.metrics == {"length": 11.0}
    assert made.problems(hashes=True) == []
    assert made.manifest.seed == 0
    assert made.manifest.versions["python"]
    assert set(made.manifest.files) == {"text.txt", "metrics.jsonl"}
    assert not list(run.store.partial(made.id).parent.iterdir())


def test_the_same_call_is_not_made_again(make):
    _, first = make("one")
    written = (first.path / "text.txt").stat().st_mtime_ns
    run, second = make("two", config=Knobs(workers=8))  # a knob without effect on the result
    assert second.id == first.id
    assert (second.path / "text.txt").stat().st_mtime_ns == written
    assert RunRecord(run.folder).state["stages"]["text"]["reused"] is True


@pytest.mark.parametrize(
    "change",
    [{"config": Knobs(times=3)}, {"values": defer(numbers, count=4)}, {"seed": 1}],
    ids=["config", "deferred", "seed"],
)
def test_whatever_matters_makes_anew(make, change):
    assert make(**change)[1].id != make()[1].id


def test_a_file_is_known_by_its_content_and_not_by_its_place(make, tmp_path):
    moved, changed = tmp_path / "moved.txt", tmp_path / "changed.txt"
    moved.write_text("hello")
    changed.write_text("hullo")
    assert make(file=SourceFile(moved))[1].id == make()[1].id
    assert make(file=SourceFile(changed))[1].id != make()[1].id


def test_a_missing_file_is_said_before_anything_runs(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        SourceFile(tmp_path / "none.txt")


def test_lineage_names_inputs(make):
    run, made = make()
    copy = run.make("copy", copy_text, source=made)
    assert copy.manifest.inputs == {"source": made.id}
    assert list(run.stages) == ["text", "copy"]
    assert (run.folder / "stages" / "copy" / "copy.txt").read_text() == "2 3 hello 0"


def test_a_damaged_artifact_is_set_aside_and_made_anew(make):
    _, first = make()
    (first.path / "text.txt").write_text("short")
    _, again = make()
    assert again.id == first.id
    assert (again.path / "text.txt").read_text() == "2 3 hello 0"
    aside = first.path.with_name(f".damaged-{first.path.name}")
    assert (aside / "text.txt").read_text() == "short"


def test_verifying_finds_a_change_of_the_same_size(make):
    _, made = make()
    (made.path / "text.txt").write_text("2 3 hellO 0")
    assert made.problems() == []
    assert made.problems(hashes=True) == ["text.txt was changed: its SHA-256 is another"]


def test_a_stage_that_another_process_makes_is_busy(make):
    run, made = make()
    lock = FileLock(f"{run.store.partial(made.id)}.lock")
    (made.path / "manifest.json").unlink()
    with lock, pytest.raises(BusyError, match="Another process is making"):
        make()


def isolated(tmp_path):
    return Run(tmp_path / "home", "run", "test", Knobs(), isolate=True)


def test_errors_of_ours_cross_the_process_and_keep_their_kind(tmp_path):
    with pytest.raises(DataError, match="row 3 is empty"):
        isolated(tmp_path).make("broken", break_down, how="data")


def test_a_bug_keeps_its_traceback(tmp_path):
    with pytest.raises(StageFailedError, match="ZeroDivisionError: by nought") as caught:
        isolated(tmp_path).make("broken", break_down, how="bug")
    assert "in break_down" in caught.value.trace


def test_a_killed_stage_is_reported_and_leaves_no_artifact(tmp_path):
    run = isolated(tmp_path)
    with pytest.raises(StageDiedError, match="most likely because memory ran out"):
        run.make("broken", break_down, how="kill")
    assert list(run.store) == []


def test_an_isolated_stage_makes_the_same_as_one_here(make, tmp_path):
    _, here = make()
    arguments = {
        "config": Knobs(),
        "values": defer(numbers, count=3),
        "file": SourceFile(tmp_path / "source.txt"),
        "seed": 0,
    }
    there = Run(tmp_path / "other", "run", "test", Knobs()).make("text", write_text, **arguments)
    assert there.id == here.id
    assert there.manifest.files == here.manifest.files


def test_runs_are_listed_and_a_killed_one_shows_as_interrupted(make):
    run, _ = make("first")
    run.finish({"x": 1})
    second, _ = make("second")
    path = second.folder / "run.json"
    state = json.loads(path.read_text()) | {"pid": 2**22 + 1, "started": "2999-01-01"}
    path.write_text(json.dumps(state))
    found = all_runs(run.home)
    assert [(record.folder.name, record.status) for record in found] == [
        ("second", "interrupted"),
        ("first", "finished"),
    ]
    assert '"stage": "text"' in (run.folder / "metrics.jsonl").read_text()


def test_artifacts_are_found_by_the_start_of_their_id(make):
    run, made = make()
    store = Store(run.home / "store")
    assert store.get(made.id[:8]).id == made.id
    with pytest.raises(ArtifactError, match="no artefact 'zzz'"):
        store.get("zzz")
    with pytest.raises(ArtifactError, match=r"has no"):
        Artifact(Path(run.home)).manifest  # noqa: B018
