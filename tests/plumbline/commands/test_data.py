"""``plumbline data check | formats``: what a file holds, before a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from plumbline.commands.app import app
from plumbline.commands.data_check import READERS
from plumbline.data.records import assistant, user
from plumbline.data.uses import USES

TALK = [user("Name a colour"), assistant("Red")]


@pytest.fixture
def check(tmp_path):
    """Check rows in a file; return the JSON object, or the text, and the exit code."""

    def run(rows, use, *options, as_json=True):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        arguments = ["data", "check", str(path), "--as", use, *options]
        result = CliRunner().invoke(app, [*arguments, *(["--json"] if as_json else [])])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return (json.loads(result.stdout) if as_json else result.stdout), result.exit_code

    return run


def test_every_use_has_the_reader_of_its_stage():
    assert set(READERS) == set(USES)


def test_demonstrations_go_through_the_stage_s_own_checks(check):
    rows = [
        {"messages": TALK, "label": True, "id": 1},
        {"messages": TALK, "label": True, "id": 2},
        {"messages": TALK, "label": False, "id": 3},
        {"messages": [user("x"), assistant("y" * 9000)], "label": True},
        {"messages": [user("x")], "label": True},
    ]
    found, code = check(rows, "demonstrations")
    assert code == 0
    assert (found["format"], found["rows"], found["kept"]) == ("messages", 5, 1)
    assert found["dropped"] == {
        "has the label false: its response was rejected, so it is not learnt": 1,
        "is longer than max_characters (8000)": 1,
        "ends with the user's turn, so there is no response to learn": 1,
        "repeats an earlier row": 1,
    }
    assert found["dropped_rows"]["repeats an earlier row"] == [2]
    assert found["columns_used"] == {"messages": "messages", "label": "label"}
    assert found["columns_unused"] == {"id": 3}


PAIR = {"prompt": "Name a colour", "chosen": "Red", "rejected": "No"}


@pytest.mark.parametrize(
    ("use", "rows", "kept"),
    [
        ("preferences", [PAIR, PAIR | {"rejected": "Red"}], 1),
        (
            "unpaired",
            [{"prompt": "a", "completion": "b", "label": n} for n in (True, "perhaps", True)],
            1,
        ),
        (
            "steps",
            [{"prompt": p, "completions": ["b"], "labels": [True]} for p in ("a", "")],
            1,
        ),
        ("prompts", [{"prompt": "a"}, {"prompt": " "}], 1),
        ("pairs", [PAIR, PAIR | {"rejected": " RED"}], 1),
        ("labels", [{"item": n, "person": "ana", "label": "a"} for n in (1, 2)], 2),
        (
            "samples",
            [{"prompt": "a", "response": "b", "model": m, "scores": {"s": 1}} for m in "xy"],
            2,
        ),
    ],
)
def test_each_use_reads_as_its_stage_does(check, use, rows, kept):
    found, code = check(rows, use)
    assert (found["kept"], code) == (kept, 0), found
    assert found["format"]
    text, _ = check(rows, use, as_json=False)
    assert f"{kept} kept" in text


def test_nothing_to_read_exits_with_3(check, tmp_path):
    found, code = check([{"colour": "red"}], "demonstrations")
    assert (found["kept"], found["format"], code) == (0, None, 3)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1xxxx")
    arguments = ["data", "check", str(tmp_path / "broken.parquet"), "--as", "prompts", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3
    assert "is not Parquet, or it is damaged" in json.loads(result.stdout)["warnings"][0]
    result = CliRunner().invoke(app, ["data", "check", "no/file.jsonl", "--as", "prompts"])
    assert result.exit_code == 3
    assert "There is no file" in result.stdout


def test_columns_and_formats_are_named_by_options(check):
    rows = [{"q": "Name a colour", "good": "Red", "system": 5}]
    named = ("--columns", "prompt=q, response=good", "--ignore", "system")
    found, code = check(rows, "demonstrations", *named)
    assert (found["kept"], found["format"], code) == (0, "columns", 3)  # the part system is read
    rows = [{"q": "Name a colour", "good": "Red"}]
    found, code = check(rows, "demonstrations", *named[:2])
    assert (found["kept"], code) == (1, 0)
    assert found["example"][0]["messages"] == TALK
    found, _ = check([{"prompt": "a", "completion": "b", "question": "c", "answer": "d"}],
                     "demonstrations", "--format", "prompt_completion")  # fmt: skip
    assert found["columns_unused"] == {"question": 1, "answer": 1}
    for options, message in (
        (("--columns", "prompt"), "takes PART=COLUMN"),
        (("--columns", "promt=q"), "Did you mean 'prompt'"),
        (("--format", "alpacca"), "Did you mean 'alpaca'"),
    ):
        with pytest.raises(Exception, match=message):
            check(rows, "demonstrations", *options)
    with pytest.raises(Exception, match="Did you mean 'preferences'"):
        check(rows, "preference")


def test_a_row_is_shown_as_the_model_sees_it(check, base_folder, tokenizer):
    system = {"role": "system", "content": "Be brief."}
    found, _ = check([{"messages": [system, *TALK]}], "demonstrations", "--model", str(base_folder))
    assert found["tokens"]["measured_rows"] == 1
    assert found["tokens"]["window"] == 256
    whole = tokenizer.apply_chat_template([system, *TALK], tokenize=True, return_dict=True)
    assert found["tokens"]["longest"] == len(whole["input_ids"])
    text, _ = check([{"messages": [system, *TALK]}], "demonstrations", "--model", str(base_folder),
                    as_json=False)  # fmt: skip
    assert "<|assistant|>▶Red" in text.replace("\n", "")
    long = [PAIR | {"rejected": "no " * 400}]
    found, _ = check(long, "preferences", "--model", str(base_folder))
    assert "1 of 1 rows are longer than the model's window of 256 tokens" in found["warnings"]


def test_several_files_are_one_object(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": name}) + "\n")
    files = [str(tmp_path / f"{name}.jsonl") for name in ("a", "b")]
    result = CliRunner().invoke(app, ["data", "check", *files, "--as", "prompts", "--json"])
    assert [one["kept"] for one in json.loads(result.stdout)["files"].values()] == [1, 1]


def test_formats_are_listed():
    result = CliRunner().invoke(app, ["data", "formats"])
    assert "oasst_tree" in result.stdout
    assert "| `alpaca` |" in CliRunner().invoke(app, ["data", "formats", "--markdown"]).stdout


def test_the_page_of_steps_is_made_from_the_code():
    from plumbline.commands.data_steps import as_markdown

    page = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text("utf-8")
    assert as_markdown() in page, "run: plumbline data steps --markdown"
