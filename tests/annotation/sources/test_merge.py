"""Labels from several sources and from files: merged once, sources kept, errors with rows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.gold_answers import read_gold, write_gold
from annotation.sources.config import LabelFileConfig
from annotation.sources.label_files import UNKNOWN_TIME, import_labels, read_label_file
from annotation.sources.merge import COVERAGE_FILE, coverage, merge, merge_labels
from plumbline.config import load
from plumbline.data.labels import CHOICES, Label, read_labels, write_labels
from plumbline.data.records import assistant, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import ConfigError, DataError
from plumbline.runs.artifacts import Manifest, Store
from plumbline.runs.calls import SourceFile
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage

LABEL = Label("p", "ana", "argilla", "a", "2026-01-05T09:00:00+00:00", "a")


def test_what_lies_in_two_artifacts_counts_once():
    person, judge = LABEL, replace(LABEL, annotator="gpt", source="llm", choice="b")
    later = replace(LABEL, created_at="2026-01-06T09:00:00+00:00")
    repeat = replace(LABEL, purpose="repeat")
    other = replace(LABEL, choice="b")
    merged, dropped = merge({"one": [person, judge, later], "two": [person, repeat, other]})
    assert merged == [person, judge, later, repeat]
    assert [(row["origin"], row["row"]) for row in dropped.rows] == [("two", 1), ("two", 3)]
    assert dropped.reasons() == {
        "is the same as an earlier label": 1,
        "contradicts an earlier label of the same person, pair, purpose and time": 1,
    }
    assert dropped.rows[1]["record"]["kept"] == "a"


some_labels = st.lists(
    st.builds(
        replace,
        st.just(LABEL),
        pair_id=st.sampled_from("pq"),
        annotator=st.sampled_from("xy"),
        source=st.sampled_from(("file", "llm")),
        choice=st.sampled_from(CHOICES),
    ),
    max_size=12,
)


@given(some_labels, some_labels)
def test_nothing_is_lost_and_merging_again_changes_nothing(first, second):
    merged, dropped = merge({"one": first, "two": second})
    assert len(merged) + len(dropped.rows) == len(first) + len(second)
    assert set(map(repr, merged)) <= set(map(repr, [*first, *second]))
    assert merge({"merged": merged, "two": second})[0] == merged


def test_coverage_counts_what_only_one_artifact_has():
    given = {
        "one": [LABEL, replace(LABEL, annotator="bo"), replace(LABEL, pair_id="q")],
        "two": [replace(LABEL, pair_id="q"), replace(LABEL, pair_id="r")],
    }
    assert coverage(given) == {
        "one": {"labels": 3, "pairs": 2, "only_here": 1},
        "two": {"labels": 2, "pairs": 2, "only_here": 1},
    }


@pytest.fixture
def labels(tmp_path):
    """Publish labels as an artefact."""

    def publish(name, given, answers=None, pairs="pairs-1"):
        folder = tmp_path / f"new-{name}"
        folder.mkdir()
        write_labels(folder, given)
        if answers:
            write_gold(folder, answers)
        manifest = Manifest(
            kind="labels", id=f"labels-{name}", schema_version=1, stage="test", arguments={},
            inputs={"pairs": pairs}, seed=None, data_seed=0, metrics={}, versions={}, machine={},
            seconds=0.0, peak_memory_bytes=0, files={},
        )  # fmt: skip
        (tmp_path / "store").mkdir(exist_ok=True)
        return Store(tmp_path / "store").publish(folder, manifest)

    return publish


def test_sources_stay_and_known_answers_come_along(stage, labels, monkeypatch):
    said = []
    monkeypatch.setattr(Stage, "say", lambda self, text: said.append(text))
    judge = replace(LABEL, annotator="gpt", source="llm")
    one = labels("one", [LABEL, judge], {"g1": "a"})
    two = labels("two", [LABEL, replace(LABEL, pair_id="q")], {"g1": "a", "g2": "b"}, "pairs-2")
    figures = merge_labels(stage, labels=[one, two])
    assert read_labels(stage.folder) == [LABEL, judge, replace(LABEL, pair_id="q")]
    assert read_gold(stage.folder) == {"g1": "a", "g2": "b"}
    assert (figures["labels"], figures["sources"], figures["duplicates"]) == (3, 2, 1)
    assert figures["pairs_in_one_artifact_only"] == 1
    table = json.loads((stage.folder / COVERAGE_FILE).read_text())
    assert table["labels-two"] == {
        "labels": 2, "pairs": 2, "only_here": 1, "pairs_artifact": "pairs-2",
    }  # fmt: skip
    assert "different sets of pairs (pairs-1, pairs-2)" in said[-1]


def test_labels_on_other_pairs_are_left_out_and_counted(tmp_path, stage, labels):
    row = {"pair_id": "p", "prompt": [user("?")], "a": [assistant("x")], "b": [assistant("y")]}
    write_dataset(tmp_path / "pairs", {"train": [row]}, kind="prompts", title="P", description="")
    manifest = labels("one", [LABEL]).manifest.model_copy(update={"id": "pairs-1", "kind": "pairs"})
    pairs = Store(tmp_path / "store").publish(tmp_path / "pairs", manifest)
    gold = replace(LABEL, pair_id="g1", purpose="gold")
    two = labels("two", [LABEL, gold, replace(LABEL, pair_id="q")], {"g1": "a"})
    figures = merge_labels(stage, labels=[two], pairs=pairs)
    assert read_labels(stage.folder) == [LABEL, gold]
    assert Dropped.read(stage.folder).reasons() == {"is on a pair that is not in pairs-1": 1}
    assert figures["dropped_rows"] == 1


def test_known_answers_that_differ_are_refused(stage, labels):
    one, two = labels("one", [LABEL], {"g": "a"}), labels("two", [LABEL], {"g": "tie"})
    with pytest.raises(
        DataError, match=r"g has the answer 'a' in labels-one and 'tie' in labels-two"
    ):
        merge_labels(stage, labels=[one, two])
    with pytest.raises(DataError, match="nothing to merge"):
        merge_labels(stage, labels=[])


# --- Files


ROWS = [
    {"item": "p-0", "who": "ana", "better": "1", "rationale": "shorter, clearer"},
    {"item": "p-1", "who": "bo", "better": "0", "created_at": "2026-02-01T10:00:00+02:00",
     "shown_first": "b", "strength": 2, "flags": ["unsafe"], "purpose": "gold"},
]  # fmt: skip
CONFIG = LabelFileConfig(
    columns={"item": "item", "person": "who", "vote": "better"},
    choices={"1": "a", "2": "b", "0": "tie"},
)


def write(path, rows):
    if path.suffix == ".csv":
        import csv

        names = list(dict.fromkeys(name for row in rows for name in row))
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            writer.writerows(
                {k: ";".join(v) if isinstance(v, list) else v for k, v in row.items()}
                for row in rows
            )
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_files_of_labels_are_read(tmp_path, suffix):
    rows = [*ROWS]
    if suffix == "parquet":  # has its columns from the first row
        rows[0] = dict.fromkeys(ROWS[1]) | ROWS[0]
        rows[1] = rows[1] | {"rationale": None}
    found = read_label_file(write(tmp_path / f"labels.{suffix}", rows), CONFIG).labels
    assert found == [
        Label("p-0", "ana", "file", "a", UNKNOWN_TIME, "a", rationale="shorter, clearer"),
        Label(
            "p-1", "bo", "file", "tie", "2026-02-01T08:00:00+00:00", "b",
            strength=2, flags=("unsafe",), purpose="gold",
        ),
    ]  # fmt: skip


def test_a_time_without_a_zone_is_in_utc(tmp_path):
    row = {"pair_id": "p", "annotator": "x", "choice": "a", "created_at": "2026-02-01 10:00:00"}
    found = read_label_file(write(tmp_path / "labels.jsonl", [row]), LabelFileConfig()).labels
    assert found[0].created_at == "2026-02-01T10:00:00+00:00"


def test_old_names_of_settings_are_refused_with_the_new_ones(tmp_path):
    path = tmp_path / "labels.yaml"
    path.write_text("pair_id: item\n")
    with pytest.raises(ConfigError, match=r"'pair_id' is now called 'columns\.item'"):
        load(LabelFileConfig, path)


def test_the_stage_says_what_a_file_does_not_tell(tmp_path):
    file = SourceFile(write(tmp_path / "labels.jsonl", ROWS))
    made = Stage(tmp_path / "stage", Reporter(quiet=True))
    figures = import_labels(made, config=CONFIG, file=file)
    assert figures == {
        "labels": 2, "pairs": 2, "annotators": 2, "undated": 1, "order_unknown": 1,
    }  # fmt: skip
    assert {label.source for label in read_labels(made.folder)} == {"file"}


GOOD = {"pair_id": "p", "annotator": "x", "choice": "a"}


def test_every_wrong_row_is_named(tmp_path):
    rows = [
        GOOD,
        GOOD | {"choice": "bothbad"},
        GOOD | {"pair_id": " "},
        GOOD | {"strength": 4},
        GOOD | {"created_at": "5 May"},
        GOOD | {"purpose": "votes"},
        GOOD | {"shown_first": "left"},
        {"pair_id": "p", "annotator": "x"},
    ]
    path = write(tmp_path / "labels.jsonl", rows)
    with pytest.raises(DataError) as error:
        read_label_file(path, LabelFileConfig())
    lines = str(error.value).splitlines()
    assert lines[0] == (
        f"{path}, line 2: 'choice' is 'bothbad', which is none of a, b, tie, both_bad. "
        "Did you mean 'both_bad'?"
    )
    wrong = (
        "both_bad",
        "'pair_id' is empty",
        "none of 1, 2, 3",
        "not ISO 8601",
        "Did you mean 'vote'",
        "none of a, b",
        "no column 'choice'",
    )
    for row, (line, words) in enumerate(zip(lines, wrong, strict=True), 2):
        assert f"line {row}: " in line
        assert words in line


def test_a_long_list_of_wrong_rows_is_cut_and_counted(tmp_path):
    path = write(tmp_path / "labels.jsonl", [GOOD, *[GOOD | {"choice": "left"}] * 14])
    with pytest.raises(DataError) as error:
        read_label_file(path, LabelFileConfig())
    lines = str(error.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "… and 4 more rows"
    assert "Set what it means under 'choices'" in lines[0]


def test_columns_with_other_names_are_said_at_once(tmp_path):
    path = write(tmp_path / "labels.csv", [{"pair": "p", "annotators": "x", "choice": "a"}] * 3)
    with pytest.raises(DataError, match=r"no column 'pair_id'.*there are pair, annotators, choice"):
        read_label_file(path, LabelFileConfig())
    with pytest.raises(DataError, match="Did you mean 'annotators'"):
        read_label_file(path, LabelFileConfig(columns={"item": "pair"}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pair_id,annotator,choice\np,x,a,b\n", "line 2: has 4 cells, .* 3 columns"),
        ("pair_id,annotator,choice\np,x,a\np,x\n", "line 3: has 2 cells"),
        ("pair_id,annotator,choice\n", "has no row"),
        ('pair_id,annotator,choice\np,"x"y,a\n', "cannot be read: line 2 is not CSV"),
    ],
)
def test_broken_csv_is_refused(tmp_path, text, words):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_label_file(path, LabelFileConfig())
