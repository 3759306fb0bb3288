"""Stages and runs: what is done once is not done again, and a changed input makes anew."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from plumbline.commands.app import main
from plumbline.config import Config, not_in_identity
from plumbline.errors import ArtifactError, DataError, SystemFailedError
from plumbline.runs.artifacts import (
    Artifact,
    DamagedArtifactError,
    Store,
    is_artifact,
    sha256,
)
from plumbline.runs.calls import SourceFile, defer
from plumbline.runs.find import find_artifact
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


@pytest.fixture
def said(monkeypatch):
    """What a run says, line by line."""
    lines: list[str] = []
    monkeypatch.setattr(
        "plumbline.runs.progress.Reporter.say", lambda self, text: lines.append(text)
    )
    return lines


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


@pytest.mark.parametrize("content", ["short", "2 3 hellO 0"], ids=["size", "content"])
def test_a_damaged_artifact_is_set_aside_and_made_anew(make, said, content):
    _, first = make()
    (first.path / "text.txt").write_text(content)
    _, again = make()
    assert any("text.txt" in text and "kept as .damaged-" in text for text in said)
    assert again.id == first.id
    assert (again.path / "text.txt").read_text() == "2 3 hello 0"
    aside = first.path.with_name(f".damaged-{first.path.name}")
    assert (aside / "text.txt").read_text() == content


@pytest.mark.parametrize(("damaged", "looks"), [(True, 1), (True, 2), (False, 2)])
def test_what_another_process_makes_meanwhile_is_used(make, said, monkeypatch, damaged, looks):
    """It is done when this one has looked, and found a damaged artefact or none."""
    run, first = make()
    if damaged:
        (first.path / "text.txt").write_text("short")
    else:
        shutil.rmtree(first.path)
    look, left = Store.find, [make, *[lambda: None] * (looks - 1)]

    def look_before_another_makes_it(store, made_id):
        meanwhile = left.pop()
        if not left:
            monkeypatch.setattr(Store, "find", look)
        try:
            return look(store, made_id)
        finally:
            meanwhile()

    said.clear()
    monkeypatch.setattr(Store, "find", look_before_another_makes_it)
    make()
    assert sum("\u25b8" in text for text in said) == 1
    aside = list(run.store.root.glob(".damaged-*/text.txt"))
    assert [file.read_text() for file in aside] == ["short"] * damaged
    assert not any((run.store.root / ".partial").iterdir())


def test_who_reads_a_config_while_the_run_starts_again_has_all_of_it(make):
    """Opened before, and read after."""
    run, _ = make()
    whole = (run.folder / "config.yaml").read_bytes()
    with (run.folder / "config.yaml").open("rb") as reader:
        Run(run.home, "run", "test", Knobs(times=30), isolate=False)
        assert reader.read() == whole


def test_content_is_compared_only_where_size_or_time_differ(make, monkeypatch):
    hashed = []
    run, made = make()
    monkeypatch.setattr("plumbline.runs.artifacts.sha256", hashed.append)
    assert run.store.find(made.id).id == made.id
    assert hashed == []


@pytest.mark.parametrize("keeps_times", [True, False])
def test_a_copied_store_is_compared_once(make, tmp_path, monkeypatch, keeps_times):
    run, made = make()
    copy = shutil.copy2 if keeps_times else shutil.copyfile
    shutil.copytree(run.store.root, tmp_path / "copy", copy_function=copy)
    hashed = []
    monkeypatch.setattr(
        "plumbline.runs.artifacts.sha256", lambda file: hashed.append(file.name) or sha256(file)
    )
    for _ in range(2):
        assert Store(tmp_path / "copy").find(made.id).path == tmp_path / "copy" / made.id
    assert sorted(hashed) == ([] if keeps_times else ["metrics.jsonl", "text.txt"])


def test_a_file_that_the_manifest_does_not_list_is_refused(make):
    run, made = make()
    (made.path / ".DS_Store").touch()  # which nobody opens
    run.store.find(made.id)
    (made.path / "modeling_own.py").write_text("print('hello')")
    for use in (
        lambda: run.store.find(made.id),
        lambda: find_artifact(run.home, str(made.path)),
        make,
    ):
        with pytest.raises(ArtifactError, match=r"holds modeling_own.py, which its manifest does"):
            use()
    assert (made.path / "text.txt").exists()  # nothing was made again


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\b", ""])
def test_a_manifest_lists_files_of_its_folder_alone(make, name):
    run, made = make()
    file = made.path / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    file.write_text(json.dumps(manifest))
    with pytest.raises(DamagedArtifactError, match=r"manifest\.json cannot be read|is missing"):
        run.store.find(made.id)


def test_a_folder_of_another_tool_may_have_a_manifest(tmp_path):
    for text in ("[]", "{}", "no JSON", '{"files": 5}', "5"):
        (tmp_path / "manifest.json").write_text(text)
        assert not is_artifact(tmp_path)
        assert find_artifact(tmp_path, str(tmp_path)) is None


def test_verifying_finds_a_change_of_the_same_size(make):
    _, made = make()
    (made.path / "text.txt").write_text("2 3 hellO 0")
    assert made.problems() == []
    assert made.problems(hashes=True) == ["text.txt was changed: its SHA-256 is another"]


def test_a_stage_that_another_process_makes_is_waited_for_and_used(
    make, said, tmp_path, monkeypatch
):
    monkeypatch.setattr("plumbline.runs.make._SECONDS_BETWEEN_LOOKS", 0.05)
    run, made = make()
    hidden = tmp_path / "hidden"
    made.path.rename(hidden)
    lock = FileLock(f"{run.store.partial(made.id)}.lock", thread_local=False)

    def finish() -> None:
        while not any("another process is making it" in text for text in said):
            time.sleep(0.01)
        hidden.rename(made.path)
        lock.release()

    lock.acquire()
    other = threading.Thread(target=finish)
    other.start()
    run, again = make("two")
    other.join()
    assert again.id == made.id
    assert RunRecord(run.folder).state["stages"]["text"]["reused"] is True


def test_a_stage_that_failed_is_not_held_against_the_next_attempt(tmp_path):
    run = Run(tmp_path / "home", "run", "test", Knobs(), isolate=False)
    for _ in range(2):  # the error, which is kept, holds what the first attempt held
        with pytest.raises(DataError) as kept:
            run.make("broken", break_down, how="data")
    assert kept.value.__traceback__ is not None


@stage("half")
def stop_half_way(stage, *, seed):
    stage.checkpoints.save(seed, {"seed": seed})
    raise DataError("stopped")


def test_a_stage_that_begins_again_says_what_an_earlier_attempt_left(said, tmp_path):
    def begin(name, seed):
        said.clear()
        run = Run(tmp_path / "home", name, "test", Knobs(), isolate=False)
        with pytest.raises(DataError, match="stopped"):
            run.make("half", stop_half_way, seed=seed)
        return " ".join(said)

    partial = tmp_path / "home" / "store" / ".partial"
    assert "from its start" not in begin("run", 1)
    (first,) = partial.glob("*/checkpoints/step-1")
    assert f"It is left in {first.parents[1]}; `plumbline clean` lists such folders" in begin(
        "run", 2
    )
    assert "from its start" not in begin("run", 2)  # which has a checkpoint now
    (first.parents[1] / "place.json").write_text("{")  # of which a crash left half
    assert "from its start" not in begin("another", 3)


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
    found, damaged = all_runs(run.home)
    assert damaged == {}
    assert [(record.folder.name, record.status) for record in found] == [
        ("second", "interrupted"),
        ("first", "finished"),
    ]
    assert '"stage": "text"' in (run.folder / "metrics.jsonl").read_text()


DAMAGE = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "no stages": '{"status": "finished"}',
    "a number as status": '{"recipe": "r", "status": 5, "started": "", "seconds": 1, "stage": null,'
    ' "stages": {}}',
    "another folder's artefact": '{"recipe": "r", "status": "x", "started": "", "seconds": 1, '
    '"stage": null, "stages": {"a": {"artifact": "../../x"}}}',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_does_not_hide_the_others(make, damage, capsys):
    run, _ = make("good")
    run.finish({})
    other, _ = make("bad")
    (other.folder / "run.json").write_text(DAMAGE[damage])
    runs, damaged = all_runs(run.home)
    assert [record.folder.name for record in runs] == ["good"]
    assert list(damaged) == ["bad"] and "is damaged" in damaged["bad"]
    with pytest.raises(ArtifactError, match="is damaged"):
        RunRecord(other.folder)
    with pytest.raises(SystemExit) as ended:
        main(["runs", "--home", str(run.home)])
    shown = capsys.readouterr()
    assert ended.value.code == 0
    assert "good" in shown.out and "is damaged" in shown.err


def test_a_process_of_another_time_with_the_same_number_is_not_the_run(make):
    run, _ = make("one")
    assert RunRecord(run.folder).status == "running"
    file = run.folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"process_started": 1.0}))
    assert RunRecord(run.folder).status == "interrupted"


@stage("system")
def meet_an_error(stage, *, number):
    if number == errno.ENOMEM:
        raise MemoryError
    if number == errno.EFBIG:  # as safetensors says it
        raise RuntimeError(f"Error while serializing: I/O error: Big (os error {number})")
    raise OSError(number, os.strerror(number), "/some/file")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "can only be read"),
        (errno.EACCES, "Change the permissions"),
        (errno.ENOMEM, "Lower batch_size"),
        (errno.EFBIG, "File too large.*Raise the limit"),
    ],
)
def test_an_error_of_the_system_says_what_to_do(tmp_path, number, remedy):
    with pytest.raises(SystemFailedError, match=remedy) as caught:
        isolated(tmp_path).make("system", meet_an_error, number=number)
    assert "in meet_an_error" in caught.value.trace


def test_artifacts_are_found_by_the_start_of_their_id(make):
    run, made = make()
    store = Store(run.home / "store")
    assert store.get(made.id[:8]).id == made.id
    with pytest.raises(ArtifactError, match="no artefact 'zzz'"):
        store.get("zzz")
    with pytest.raises(ArtifactError, match=r"has no"):
        Artifact(Path(run.home)).manifest  # noqa: B018
