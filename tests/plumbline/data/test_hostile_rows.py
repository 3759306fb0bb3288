"""Every reader on every bad input: a clear error or a counted row, and never anything else."""

from __future__ import annotations

import gzip
import json

import pytest

from plumbline.commands.data_check import READERS, check
from plumbline.data.reader import DataFormatConfig
from plumbline.data.records import assistant, user
from plumbline.errors import PlumblineError

TALK = [user("Name a colour"), assistant("Red")]
#: A good row for each use.
GOOD = {
    "demonstrations": {"messages": TALK},
    "preferences": {"prompt": "Name a colour", "chosen": "Red", "rejected": "No"},
    "unpaired": {"prompt": "Name a colour", "completion": "Red", "label": True},
    "steps": {"prompt": "Name a colour", "completions": ["Think", "Red"], "labels": [True, False]},
    "prompts": {"prompt": "Name a colour", "references": ["Red"]},
    "pairs": {"prompt": "Name a colour", "a": "Red", "b": "A shade of blue"},
    "labels": {"item": "1", "person": "ana", "label": "a"},
    "samples": {"prompt": "Name a colour", "response": "Red", "model": "m", "scores": {"s": 1}},
}
#: What may stand in a cell by accident.
VALUES = {
    "null": None,
    "number": 5,
    "huge number": 10**400,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "true": True,
    "empty text": "",
    "blank": " \n ",
    "half a character": "x \ud83d",
    "NUL": "a\0b",
    "list of numbers": [1, 2],
    "list of texts": ["x"],
    "list of nulls": [None],
    "empty list": [],
    "empty object": {},
    "object": {"a": {"b": []}},
    "message without a role": [{"content": "x"}],
    "role is a list": [{"role": ["user"], "content": "x"}],
    "content is a number": [{"role": "user", "content": 5}],
    "unknown role": [{"role": "narrator", "content": "x"}],
    "nested messages": [[{"role": "user", "content": "x"}]],
    "JSON that is cut": '[{"role": "user", "conte',
    "Python that is deep": "[" * 3000,
    "very long": "x" * 200_000,
}
#: Bytes that are no rows.
FILES = {
    "empty.jsonl": b"",
    "blank lines.jsonl": b"\n\n \n",
    "number.json": b"5",
    "numbers.json": b"[1, 2]",
    "text.json": b'"hello"',
    "null.json": b"null",
    "empty list.json": b"[]",
    "empty object.json": b"{}",
    "cut.json": b'[{"prompt": "a"}, {"pro',
    "container.json": b'{"data": [{"prompt": "a", "completion": "b"}]}',
    "deep.jsonl": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep.json": b"[" * 100_000 + b"]" * 100_000,
    "digits.jsonl": b'{"prompt": "x", "n": ' + b"9" * 5000 + b"}",
    "bytes.jsonl": b'{"prompt": "\xff"}\n',
    "nul.jsonl": b'{"prompt": "a"}\n\0\0\0\n',
    "binary.jsonl": bytes(range(256)) * 20,
    "damaged.jsonl.gz": gzip.compress(b'{"prompt": "a"}\n' * 900, mtime=0)[:60],
    "no gzip.jsonl.gz": b'{"prompt": "a"}\n',
    "no parquet.parquet": b"no parquet",
    "cut.parquet": b"PAR1xxxxPAR1",
    "no arrow.arrow": b"no arrow",
    "cut.arrow": b"ARROW1\0\0xx",
    "quote.csv": b'prompt,completion\n"a,b\n',
    "twice.csv": b"prompt,prompt\na,b\n",
    "ragged.csv": b"prompt,completion\na\nb,c,d\n",
    "header.csv": b"prompt,completion\n",
    "sheet.xlsx": b"PK\x03\x04" + b"x" * 50,
    "no ending": b"\x00\x01\x02",
    "utf16.csv": "prompt,completion\na,b\n".encode("utf-16")[:-1],
}


def outcome(path, use):
    """Return what came of a file: it must be an answer, or an error with something to do."""
    try:
        found = check(str(path), use, DataFormatConfig(), None)
    except PlumblineError as error:
        assert len(str(error)) > 20
        return None
    text = json.dumps(found.as_dict())
    assert "Traceback" not in text
    assert found.rows == found.kept + len(found.dropped) or use in ("labels", "prompts")
    assert found.kept or found.warnings or len(found.dropped)
    return found


@pytest.mark.parametrize("use", READERS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_no_rows(tmp_path, use, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    found = outcome(path, use)
    assert found is None or not found.kept or use in ("prompts", "demonstrations")


@pytest.mark.parametrize("use", READERS)
@pytest.mark.parametrize("name", VALUES)
def test_a_row_with_something_else_in_a_cell(tmp_path, use, name):
    good = [GOOD[use] | {"prompt": f"Name {n} colours"} if "prompt" in GOOD[use] else GOOD[use]
            for n in range(3)]  # fmt: skip
    if use == "labels":
        good = [GOOD[use] | {"item": str(n)} for n in range(3)]
    for column in GOOD[use]:
        path = tmp_path / "rows.jsonl"
        rows = [good[0], good[1], GOOD[use] | {column: VALUES[name]}, good[2]]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = outcome(path, use)
        if use not in ("labels", "samples"):  # which take a file whole or not at all
            assert found is not None
            assert found.kept >= (1 if use == "demonstrations" else 3)


@pytest.mark.parametrize("use", [use for use in READERS if use not in ("labels", "samples")])
def test_turns_of_every_wrong_shape(tmp_path, use):
    path = tmp_path / "rows.jsonl"
    column = {"demonstrations": "messages", "preferences": "chosen", "pairs": "a"}.get(
        use, "prompt"
    )
    turns = [value for value in VALUES.values() if value != "x" * 200_000]
    rows = [GOOD[use], *(GOOD[use] | {column: [user("x"), turn]} for turn in turns)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = outcome(path, use)
    assert found is not None
    assert found.kept >= 1
