"""Where rows come from: files, folders that ``datasets`` reads, datasets of the hub."""

from __future__ import annotations

import json

import datasets
import pyarrow as pa
import pytest

from plumbline.data.records import assistant, user, write_dataset
from plumbline.data.sources import Rows, Source, source_at
from plumbline.errors import DataError
from plumbline.runs.calls import SourceFile, describe

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]


def records(source):
    return [row.record for row in source.rows()]


@pytest.fixture
def folder(tmp_path):
    """A dataset of two splits, saved in each usual way."""
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS[:1])
    )
    splits.save_to_disk(tmp_path / "saved")
    splits["train"].save_to_disk(tmp_path / "one")
    (tmp_path / "files").mkdir()
    for split, rows in (("train", ROWS), ("test", ROWS[:1])):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "files" / f"{split}.jsonl").write_text(lines)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "name", "count"),
    [
        ("saved", "saved", 2),
        ("saved:test", "saved:test", 1),
        ("one", "one", 2),
        ("files", "files", 2),
        ("files:test", "files:test", 1),
        ("files:default:test", "files:default:test", 1),
    ],
)
def test_a_folder_with_a_dataset_is_a_source(folder, place, name, count):
    source = source_at(place, folder)
    assert records(source) == ROWS[:count]
    assert source.name == name
    assert records(source_at(folder / place)) == ROWS[:count]


def test_our_own_datasets_are_sources(tmp_path):
    row = {"messages": [user("a"), assistant("b")], "origin": "x", "row": 1}
    write_dataset(tmp_path / "d", {"train": [row], "test": [row]}, kind="messages", title="D",
                  description="")  # fmt: skip
    assert records(source_at("d:test", tmp_path)) == [row]


def test_what_is_not_there_says_what_is(folder):
    with pytest.raises(DataError, match="has no split 'dev'; it has train, test"):
        records(source_at("saved:dev", folder))
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read as a dataset"):
        records(source_at("empty", folder))
    with pytest.raises(DataError, match=r"There is no file .*rows.jsonl"):
        source_at("data/rows.jsonl", folder)
    with pytest.raises(DataError, match="There is no file"):
        source_at("nothing", folder)


def test_a_dataset_of_the_hub_is_loaded_by_its_name(monkeypatch):
    asked = []

    def load(place, config, split=None, streaming=False):
        asked.append((place, config, streaming))
        return {"train": ROWS, "test": ROWS[:1]}

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert records(source_at("some-org/some-set")) == ROWS
    source = source_at("some-org/some-set:main:test")
    assert records(source) == ROWS[:1]
    assert asked == [("some-org/some-set", None, False), ("some-org/some-set", "main", False)]
    assert source.name == "some-org/some-set:main:test"


def test_a_hub_out_of_reach_is_a_sentence():
    with pytest.raises(DataError, match=r"no file or folder 'some-org/some-set' here, and the hub"):
        records(source_at("some-org/some-set"))


def test_a_source_is_known_by_its_content(folder):
    one, moved = source_at("files", folder), folder / "moved"
    before = describe(one)
    (folder / "files").rename(moved)
    assert describe(source_at("moved", folder)) == before
    assert describe(source_at("moved:test", folder)) != before
    (moved / "test.jsonl").write_text(json.dumps(ROWS[1]) + "\n")
    assert describe(source_at("moved", folder)) != before
    file = moved / "train.jsonl"
    assert describe(Source(str(file))) == describe(SourceFile(file))


def test_rows_in_memory_are_a_source():
    assert [(row.number, row.record) for row in Rows("x", ROWS).rows()] == [
        (1, ROWS[0]),
        (2, ROWS[1]),
    ]


def test_what_keeps_files_from_being_one_dataset_is_said_with_file_and_row(tmp_path):
    """The library names neither."""
    for name, text in (("a.jsonl", '{"a": 1}\n'), ("b.jsonl", '{"a": 2}\n{"a": 3, "b": 4}\n')):
        (tmp_path / name).write_text(text)
    with pytest.raises(
        DataError, match=r"a.jsonl and .*b.jsonl \(line 2\) differ in the columns 'b'"
    ):
        list(source_at(tmp_path).rows())
    (tmp_path / "b.jsonl").write_text('{"a": 2}\n{broken\n')
    with pytest.raises(DataError, match=r"b.jsonl, line 2 is not JSON"):
        list(source_at(tmp_path).rows())


def test_a_saved_dataset_that_was_cut_off_is_refused(tmp_path):
    """Between two batches, which the library takes for the end."""
    datasets.Dataset.from_list([{"a": n} for n in range(3000)]).save_to_disk(tmp_path / "one")
    (file,) = (tmp_path / "one").glob("*.arrow")
    with pa.memory_map(str(file)) as source:
        pa.ipc.open_stream(source).read_next_batch()
        end = source.tell()
    file.write_bytes(file.read_bytes()[:end])
    with pytest.raises(DataError, match=r"arrow has no mark of its end"):
        list(source_at(tmp_path / "one").rows())
