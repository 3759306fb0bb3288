"""Tables of labels in every usual shape, and ``plumbline annotate agreement`` on them."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from annotation.gold_answers import write_gold
from annotation.sources.label_tables import Columns, read_table, read_votes
from plumbline.commands.annotate.agreement import app
from plumbline.data.labels import Label, write_labels
from plumbline.errors import ConfigError, DataError

WIDE = [
    {"item": "x", "ana": "a", "ben": "a", "cy": "b"},
    {"item": "y", "ana": "b", "ben": "b", "cy": None},
    {"item": "z", "ana": "a", "ben": "b", "cy": "b"},
]
LONG = [
    {"pair_id": row["item"], "annotator": person, "choice": row[person]}
    for row in WIDE
    for person in ("ana", "ben", "cy")
    if row[person] is not None
]


def separated(rows, separator=",") -> str:
    lines = [rows[0], *({k: row.get(k) for k in rows[0]} for row in rows)]
    cells = [list(lines[0]), *([v if v is not None else "" for v in row.values()] for row in rows)]
    return "".join(separator.join(map(str, line)) + "\n" for line in cells)


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        path.write_text(separated(rows, "\t" if path.suffix == ".tsv" else ","))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(table):
    """What everybody said, as plain data."""
    votes = table.votes
    cells = zip(votes.item_of, votes.person_of, votes.code_of, strict=True)
    return {
        (votes.items[item], votes.people[person]): votes.categories[code]
        for item, person, code in cells
    }


EVERYTHING = {
    (row["item"], person): row[person]
    for row in WIDE
    for person in ("ana", "ben", "cy")
    if row[person] is not None
}


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "ndjson", "parquet"])
@pytest.mark.parametrize(("rows", "form"), [(WIDE, "wide"), (LONG, "long")])
def test_every_shape_in_every_format(tmp_path, ending, rows, form):
    table = read_votes(write(tmp_path / f"votes.{ending}", rows))
    assert table.form == form
    guessed = ("people", "item") if form == "wide" else ("item", "person", "label")
    assert table.guessed == guessed
    assert said(table) == EVERYTHING
    assert table.missing == ({"empty": 1} if form == "wide" else {})


def test_other_dresses_of_csv(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_bytes(b"\xef\xbb\xbf" + separated(WIDE, ";").replace("\n", "\r\n").encode())
    assert said(read_votes(path)) == EVERYTHING
    packed = tmp_path / "votes.csv.gz"
    packed.write_bytes(gzip.compress(separated(LONG).encode()))
    assert said(read_votes(packed)) == EVERYTHING
    path.write_text('item,ana,ben\n"one, ""two""\nthree",a,a\n\ny,b,a\n')
    assert [row.place for row in read_table(path)] == ["line 2", "line 5"]
    assert read_votes(path).votes.items == ('one, "two"\nthree', "y")


def test_the_same_number_is_the_same_category_however_it_is_written(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("item,rater1,rater2\nx,1,1.0\ny,2,\nz,2,2.00\nw,NA,1.5\n")
    table = read_votes(path)
    assert said(table) == {
        ("x", "rater1"): "1", ("x", "rater2"): "1", ("y", "rater1"): "2", ("z", "rater1"): "2",
        ("z", "rater2"): "2", ("w", "rater2"): "1.5",
    }  # fmt: skip
    assert table.missing == {"empty": 1, "NA": 1}
    rows = [{"id": 7, "r1": 1.0, "r2": True}, {"id": 8, "r1": float("nan"), "r2": False}]
    table = read_votes(write(tmp_path / "votes.parquet", rows), Columns(people=("r1", "r2")))
    assert said(table) == {("7", "r1"): "1", ("7", "r2"): "true", ("8", "r2"): "false"}
    assert table.missing == {"NaN": 1}


def test_what_stands_for_no_vote(tmp_path):
    path = tmp_path / "votes.csv"
    marks = ("NULL", "None", "N.A.", "NA", "<NA>", "#N/A", "", "-", "?")
    lines = "".join(f"{n},a,{mark}\n" for n, mark in enumerate(marks))
    path.write_text(f"item,ana,ben\n{lines}x,a,b\n")
    table = read_votes(path, Columns(people=("ana", "ben")), no_vote=("-", "?"))
    assert table.votes.categories == ("a", "b")
    assert table.missing == {mark or "empty": 1 for mark in marks}


def test_pandalm_is_read_as_it_lies(real_file):
    table = read_votes(real_file("pandalm/testset-v1.json"))
    assert table.columns.people == ("annotator1", "annotator2", "annotator3")
    assert (table.columns.item, table.form, table.guessed) == (("idx",), "wide", ("people", "item"))
    assert len(table.votes.items) == 999
    named = read_votes(
        real_file("pandalm/testset-v1.json"), Columns(people=("annotator1", "annotator3"))
    )
    assert (named.votes.people, named.guessed) == (("annotator1", "annotator3"), ("item",))


def test_named_columns_and_items_of_several_columns(tmp_path):
    rows = [
        {"q": 1, "turn": turn, "who": who, "says": says, "why": f"{turn}{who}"}
        for turn in (1, 2)
        for who, says in (("x", "good"), ("y", "bad"))
    ]
    path = write(tmp_path / "votes.jsonl", rows)
    columns = Columns(item=("q", "turn"), person="who", label="says")
    table = read_votes(path, columns)
    assert not table.guessed
    assert table.votes.items == ("1 / 1", "1 / 2")
    with pytest.raises(DataError, match=r"line 1 and line 3 are both a vote of 'x' on '1'"):
        read_votes(path, Columns(item=("q",), person="who", label="says"))


def test_an_item_column_that_is_guessed_counts_only_where_it_tells_rows_apart(tmp_path):
    rows = [row | {"item": "same"} for row in WIDE]
    path = write(tmp_path / "votes.json", rows)
    assert read_votes(path).votes.items == ("row 1", "row 2", "row 3")
    with pytest.raises(DataError, match="row 1 and row 2 are both the item 'same'"):
        read_votes(path, Columns(people=("ana", "ben"), item=("item",)))


def test_a_column_of_texts_beside_people_is_the_item(tmp_path):
    rows = [{"text": f"text {n}", "ana": "ab"[n % 2], "ben": "ab"[n // 2 % 2]} for n in range(12)]
    table = read_votes(write(tmp_path / "votes.json", rows))
    assert (table.columns.people, table.columns.item) == (("ana", "ben"), ("text",))


@pytest.mark.parametrize(
    ("rows", "pattern"),
    [
        ([{"item": "x", "length": 3, "colour": "red"}], "not clear.*'length', 'colour'.*--people"),
        ([{"item": "x", "ana": "a"}], "not clear"),
        (
            [{"item": "x", "annotator": "p", "judge": "q", "label": "a"}],
            "could be the person: 'annotator', 'judge'",
        ),
        (
            [{"item": "x", "annotator": "p", "label": "a", "score": 2}],
            "could be the label: 'label', 'score'",
        ),
        ([{"item": "x", "annotator": "p", "label": "a", "rater1": 1, "rater2": 2}], "not clear"),
    ],
)
def test_columns_that_cannot_be_guessed_are_named(tmp_path, rows, pattern):
    with pytest.raises(DataError, match=pattern):
        read_votes(write(tmp_path / "votes.json", rows))


@pytest.mark.parametrize(
    ("name", "text", "pattern"),
    [
        ("v.csv", "item,ana,ben\nx,a\n", r"v.csv, line 2 has 2 cells, .* 3 columns"),
        ("v.csv", "item,ana,ana\nx,a,b\n", r"names 'ana' more than once"),
        ("v.csv", 'item,ana,ben\nx,a,b\ny,"a,b\n', r"line 3 is not CSV"),
        ("v.csv", "item,ana,ben\n", "has no rows"),
        ("v.csv", "", "has no rows"),
        ("v.csv", b"item,ana,ben\nx,\xff,b\n", r"line 2 is not UTF-8"),
        ("v.csv.gz", b"plain", "cannot be unpacked"),
        ("v.json", "[[1, 2]]", r"row 1 is a list, not an object"),
        ("v.json", '{"a": 1}', "not clear which columns"),
        ("v.json", "[", "cannot be read"),
        ("v.jsonl", '{"item": "x"}\nnonsense\n', "line 2 is not JSON"),
        ("v.parquet", b"no parquet at all", "is not Parquet"),
        ("v.xlsx", b"PK", r"'.xlsx' is none that can be read: .*Save its sheet as CSV"),
        ("v.csv", "pair,person,vote\nx,p,a\n,q,b\n", r"line 3: 'pair' is empty"),
        ("v.csv", "pair,person,vote\nx,p,a\nx,,b\n", r"line 3: 'person' is empty"),
        ("v.csv", "pair,person,vote\nx,p,\nx,q,NA\n", r"2 rows, but no vote in the column 'vote'"),
        ("v.json", '[{"item": 1, "rater1": [1], "rater2": 2}]', r"row 1: 'rater1' holds list"),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path, name, text, pattern):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=pattern):
        read_votes(path)


def test_what_is_no_label_is_refused(tmp_path):
    rows = [{"item": n, "person": "p", "label": f"a whole text {n}"} for n in range(101)]
    with pytest.raises(DataError, match="holds 101 different values, such as 'a whole text 0'"):
        read_votes(write(tmp_path / "v.json", rows))


def test_wrong_options(tmp_path):
    path = write(tmp_path / "v.csv", WIDE)
    with pytest.raises(DataError, match=r"no column 'anna' \(--people\). Did you mean 'ana'"):
        read_votes(path, Columns(people=("anna", "ben")))
    with pytest.raises(ConfigError, match="one or the other"):
        read_votes(path, Columns(people=("ana", "ben"), label="cy"))
    with pytest.raises(ConfigError, match="names a column twice"):
        read_votes(path, Columns(people=("ana", "ana")))
    with pytest.raises(DataError, match=r"There is no file .*gone.csv"):
        read_votes(tmp_path / "gone.csv")


# The command line.


@pytest.fixture
def command():
    """``agreement`` as a command among others, as it stands under ``plumbline annotate``."""
    parent = typer.Typer()
    parent.add_typer(app)
    parent.callback()(lambda: None)

    def invoke(*arguments):
        result = CliRunner().invoke(parent, ["agreement", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_tables_in_the_terminal(command, tmp_path):
    result = command(write(tmp_path / "v.csv", WIDE), "--resamples", 50)
    assert result.exit_code == 0
    for wanted in (
        "3 items with a vote",
        "(guessed: people, item)",
        "Fleiss' kappa",
        "ana – ben",
        "1 empty",
    ):
        assert wanted in " ".join(result.stdout.split())
    # Fleiss leaves out y, on which only two voted.
    assert "leaves out 1 with another number" in " ".join(result.stdout.split())


def test_json_says_the_same(command, tmp_path):
    path = write(tmp_path / "v.csv", WIDE)
    result = command(path, "--json", "--ordinal", "a,b", "--resamples", 20, "--seed", 3)
    found = json.loads(result.stdout)
    # Agreeing pairs of votes: 1 of 3 on x, 1 of 1 on y, 1 of 3 on z.
    assert found["agreement"]["value"] == pytest.approx(3 / 7)
    assert found["pairs"][0]["people"] == ["ana", "ben"]
    assert found["pairs"][0]["agreement"]["value"] == pytest.approx(2 / 3)
    assert found["majorities"] == {"a": 1, "b": 2, "no majority": 0}
    assert found["alpha_ordinal"]["value"] == pytest.approx(found["alpha"]["value"])
    assert found["missing"] == {"empty": 1}
    assert (found["form"], found["guessed"]) == ("wide", ["people", "item"])
    assert found["columns"]["people"] == ["ana", "ben", "cy"]
    assert found["interval"] == {
        "method": found["interval"]["method"], "confidence": 0.95, "resamples": 20, "seed": 3,
    }  # fmt: skip
    same = command(path, "--json", "--ordinal", "a,b", "--resamples", 20, "--seed", 3)
    assert same.stdout == result.stdout
    named = command(path, "--json", "--people", "ana, cy", "--item", "item", "--resamples", 0)
    found = json.loads(named.stdout)
    assert (found["guessed"], len(found["people"]), found["agreement"]["low"]) == ([], 2, None)


def test_many_people_are_not_all_listed_in_the_terminal(command, tmp_path):
    rows = [
        {"item": n, **{f"rater{p}": "ab"[(n * p // 3) % 2] for p in range(1, 11)}} for n in range(9)
    ]
    path = write(tmp_path / "v.json", rows)
    result = command(path, "--resamples", 0)
    assert "the lowest; 15 more with --json" in result.stdout
    assert len(json.loads(command(path, "--json", "--resamples", 0).stdout)["pairs"]) == 45


def test_capitals_that_make_two_categories_are_pointed_out(command, tmp_path):
    rows = [
        {"item": "x", "rater1": "A", "rater2": "a"},
        {"item": "y", "rater1": "a", "rater2": "a"},
    ]
    result = command(write(tmp_path / "v.json", rows), "--resamples", 0)
    assert "Counted as different categories: 'A', 'a'" in result.stdout


def test_capitals_that_make_two_people_are_pointed_out(command, tmp_path):
    rows = [
        {"item": item, "person": person, "label": "good"}
        for item, person in zip(
            "vwxyz", ("Ana", "ana", "Zoe\u0301", "Zo\u00e9", "ben"), strict=True
        )
    ]
    path = write(tmp_path / "v.json", rows)
    said = command(path, "--resamples", 0).stdout
    assert "Counted as 2 people: 'Ana', 'ana'." in said
    assert "Counted as 2 people: 'Zoe\u0301', 'Zo\u00e9'." in said
    alike = json.loads(command(path, "--json", "--resamples", 0).stdout)["people_alike"]
    assert [len(names) for names in alike] == [2, 2]


def test_options_that_make_no_sense(command, tmp_path):
    path = write(tmp_path / "v.csv", WIDE)
    with pytest.raises(ConfigError, match="nobody chose"):
        command(path, "--ordinal", "a,c")
    with pytest.raises(ConfigError, match="two categories"):
        command(path, "--ordinal", "a")
    assert command(path, "--resamples", -1).exit_code == 2


def label(
    pair: str, who: str, choice: str, purpose: str = "vote", minute: int = 0, **more
) -> Label:
    return Label(
        pair_id=pair, annotator=who, source="argilla", choice=choice, purpose=purpose,
        created_at=f"2026-01-05T09:{minute:02}:00+00:00", **({"shown_first": "a"} | more),
    )  # fmt: skip


LABELS = [
    label("x", "ana", "a", minute=0),
    label("x", "ben", "a", minute=1, shown_first="b"),
    label("y", "ana", "tie", minute=2),
    label("y", "ben", "b", minute=3, shown_first="b"),
    label("z", "ana", "b", minute=4),
    label("z", "ben", "b", minute=5),
    label("x", "ana", "b", "repeat", minute=6),
    label("g", "ana", "a", "gold", minute=7),
    label("g", "ben", "b", "gold", minute=8, shown_first="b"),
    label("y", "eva", "b", "adjudication", minute=9),
]


def test_a_labels_artifact(command, tmp_path):
    write_labels(tmp_path, LABELS)
    write_gold(tmp_path, {"g": "a"})
    found = json.loads(command(tmp_path, "--json", "--resamples", 0).stdout)
    assert (found["form"], found["items"], found["votes"]) == ("labels", 3, 6)
    assert found["agreement"]["value"] == pytest.approx(2 / 3)
    assert found["order"] == ["a", "tie", "b"]
    people = {person["name"]: person for person in found["labels"]["people"]}
    assert people["ana"]["gold_accuracy"]["value"] == 1.0
    assert people["ben"]["gold_accuracy"]["value"] == 0.0
    assert people["ana"]["self_consistency"]["value"] == 0.0
    assert people["ana"]["median_seconds"]["value"] == 120
    assert found["labels"]["purposes"] == {"vote": 6, "gold": 2, "repeat": 1, "adjudication": 1}
    again = command(tmp_path / "labels.parquet", "--resamples", 0).stdout
    assert "Labels by purpose: 6 vote, 2 gold, 1 repeat, 1 adjudication" in " ".join(again.split())
    with pytest.raises(ConfigError, match="whose columns are known"):
        command(tmp_path, "--people", "ana,ben")
    copy = (tmp_path / "labels.parquet").rename(tmp_path / "copy.parquet")
    with pytest.raises(DataError, match="gold items and repeats are no votes"):
        command(copy)


def test_folders_and_files_that_hold_no_labels(command, tmp_path):
    with pytest.raises(DataError, match="There is no"):
        command(tmp_path)
    pq.write_table(pa.Table.from_pylist(WIDE), tmp_path / "labels.parquet")
    with pytest.raises(DataError, match="does not hold labels as Plumbline writes them"):
        command(tmp_path)
    write_labels(tmp_path, [])
    with pytest.raises(DataError, match="There are no labels"):
        command(tmp_path)


def test_what_is_no_vote_may_name_an_item(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("item,ana,ben\n1,1,2\n2,2,1\n")
    table = read_votes(file, Columns(people=("ana", "ben"), item=("item",)), no_vote=("2",))
    assert table.missing == {"2": 2}
    assert table.votes.votes == 2
