"""Samples of other tools in ``compare``, and tables of votes in ``annotate agreement``."""

from __future__ import annotations

import json
import random

import pytest


def sample(n, model, **changes):
    return {
        "prompt": f"question {n}", "response": f"{model} says {n}", "model": model,
        "scores": {"quality": (n * 7 + len(model)) % 5 / 4},
    } | changes  # fmt: skip


BAD_VALUES = {
    "prompt": [None, "", 5, [], {}, [[]], True, [{"role": "user"}], [{"role": 1}]],
    "response": [None, [], {}, [{"role": "user", "content": "x"}]],
    "model": [None, "", [], {}, True, " "],
    "seed": [[], {}, True],
    "checkpoint": ["x", -1, 1.5, [], 10**400, True],
    "scores": [5, "x", [1], {"": 1}, {"quality": "high"}, {"quality": True}, {"quality": 10**400},
               {"quality": float("inf")}, {"quality": [1]}, {"response": 1}],
    "logprob": [0.5, "x", float("-inf"), [], {}, True, 10**400],
    "reference_logprob": [3, "-1", [], True],
    "tokens": [-4, 1.5, "x", [], True, 10**400],
    "finished": ["false", 1, 0, "yes", [], {}],
    "costs": [5, "x", [], {"seconds": -5}, {"seconds": "x"}, {"seconds": float("nan")},
              {"seconds": True}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD_VALUES.items() for value in values]
)
def test_a_value_without_its_meaning_refuses_the_file_with_the_line(attempt, tmp_path, key, value):
    rows = [sample(n, model) for model in ("a", "b") for n in range(4)]
    rows[2][key] = value
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    outcome = attempt("compare", "--samples", str(file), "--out", str(tmp_path / "out"))
    outcome.refused(3, "samples.jsonl", "line 3")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["prompt", "response", "model"])
def test_a_row_without_what_all_need_refuses_the_file(attempt, tmp_path, key):
    rows = [sample(n, model) for model in ("a", "b") for n in range(4)]
    del rows[2][key]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    outcome = attempt("compare", "--samples", str(file), "--out", str(tmp_path / "out"))
    outcome.refused(3, "samples.jsonl", "line 3")


@pytest.mark.parametrize(
    "options",
    [
        ["--baseline", "nobody"], ["--judge", "nothing"], ["--baseline", ""], ["--judge", ""],
        ["--baseline", "\ud83d"], ["--judge", "../../x"], ["--samples", "/none.jsonl"],
        ["--samples", "/"], ["nothing"], ["--confidence", "2"], ["--baseline", "a", "--judge", "a"],
    ],
    ids=ascii,
)  # fmt: skip
def test_what_cannot_be_compared(attempt, tmp_path, options):
    file = tmp_path / "samples.jsonl"
    rows = [sample(n, model) for model in ("a", "b") for n in range(4)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    outcome = attempt(
        "compare", "--samples", str(file), "--home", str(tmp_path), "--out", str(tmp_path / "out"),
        *options,
    )  # fmt: skip
    assert outcome.code in (2, 3, 5), outcome


CONTENT = {
    "empty": b"", "null": b"null", "number": b"5", "cut": b'{"prompt": "a", "re',
    "zeros": bytes(99),
    "utf-16": '{"prompt": "a"}'.encode("utf-16"), "deep": b"[" * 50_000, "html": b"<html></html>",
    "one row": json.dumps(sample(0, "a")).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENT)
def test_bytes_that_are_no_samples(attempt, tmp_path, name):
    file = tmp_path / "samples.jsonl"
    file.write_bytes(CONTENT[name])
    outcome = attempt("compare", "--samples", str(file), "--out", str(tmp_path / "out"))
    outcome.refused(3)


# -------------------------------------------------------------------------------- tables of votes

TABLES = {
    "empty": b"",
    "header": b"item,ana,ben\n",
    "one column": b"item\n1\n2\n",
    "one person": b"item,ana\n1,a\n2,b\n",
    "header twice": b"item,ana,ana\n1,a,b\n",
    "ragged": b"item,ana,ben\n1,a\n2,b,a,c\n",
    "quote": b'item,ana,ben\n1,"a,b\n',
    "latin-1": "item,ana,ben\n1,caf\xe9,b\n".encode("latin-1"),
    "zeros": bytes(400),
    "all missing": b"item,ana,ben\n1,NA,null\n2,,None\n",
    "no item in common": b"item,ana,ben\n1,a,\n2,,b\n",
    "one category": b"item,ana,ben\n1,a,a\n2,a,a\n",
    "one item": b"item,ana,ben\n1,a,b\n",
    "same item twice": b"item,person,label\n1,ana,a\n1,ana,b\n",
    "every label another": b"item,ana,ben\n"
    + b"".join(b"%d,x%d,y%d\n" % (n, n, n) for n in range(99)),
    "wide": b"item," + b",".join(b"p%d" % n for n in range(1500)) + b"\n1" + b",a" * 1500 + b"\n",
    "formula": b"item,=1+1,@ben\n1,a,b\n2,a,a\n",
    "escape": b"item,\x1b[31mana,ben\x07\n1,a\x1b[2J,b\n2,a,a\n",
    "mark": b"\xef\xbb\xbfitem,ana,ben\n1,a,b\n2,a,a\n",
    "long label": b"item,ana,ben\n1," + b"x" * 3_000_000 + b",b\n2,a,a\n",
    "numbers": b"item,ana,ben\n1,1e400,nan\n2,-0,0\n",
}


def vote(item, person="ana", label="a"):
    return {"item": item, "person": person, "label": label}


ROWS = {
    "lone surrogate": [vote("\ud83d"), vote("\ud83d", "ben")],
    "list as label": [vote(1, label=["a"]), vote(1, "ben")],
    "object as label": [vote(1, label={"a": 1})],
    "null item": [vote(None), vote(1, "ben")],
    "null person": [vote(1, None), vote(1, "ben")],
    "number and text": [vote(1, label=1), vote("1", "ben", "1")],
    "true and 1": [vote(1, label=True), vote(1, "ben", 1)],
    "other columns": [vote(1), {"x": 2}],
    "deep": [vote(1, label=json.loads("[" * 90 + "]" * 90))],
    "one vote": [vote(1)],
}  # fmt: skip


@pytest.mark.parametrize("name", [*TABLES, *ROWS])
def test_a_table_of_votes(attempt, tmp_path, name):
    file = tmp_path / ("votes.csv" if name in TABLES else "votes.jsonl")
    if name in TABLES:
        file.write_bytes(TABLES[name])
    else:
        file.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS[name]))
    outcome = attempt("annotate", "agreement", str(file), "--resamples", "50")
    if outcome.code:
        outcome.refused(3)
    else:
        outcome.accepted()
        readable = attempt("annotate", "agreement", str(file), "--resamples", "50", "--json")
        json.loads(readable.output, parse_constant=pytest.fail)


@pytest.mark.parametrize("seed", range(25))
def test_a_table_that_was_damaged_on_the_way(attempt, tmp_path, seed):
    generator = random.Random(seed)
    lines = [
        "item,ana,ben,cy",
        *(f"{n},{','.join(generator.choices('ab', k=3))}" for n in range(30)),
    ]
    text = "\n".join(lines).encode()
    start = generator.randrange(len(text))
    noise = generator.choice(
        [b"", b"\0", b'"', b"\xff", b",,,,", b"\n\n", b"\r", b"\x1b[2J", b"=1+1"]
    )
    file = tmp_path / "votes.csv"
    file.write_bytes(text[:start] + noise + text[start + generator.randrange(9) :])
    outcome = attempt("annotate", "agreement", str(file), "--resamples", "20")
    assert outcome.code in (0, 3), outcome


@pytest.mark.parametrize(
    "options",
    [
        ["--people", "nobody"], ["--people", ","], ["--item", "nothing"], ["--person", "x"],
        ["--label", "x"], ["--person", "ana", "--label", "ana"], ["--ordinal", "a"],
        ["--ordinal", "a,a"], ["--ordinal", "x,y"], ["--resamples", "-1"], ["--seed", "x"],
        ["--people", "ana,ana"], ["--people", "\ud83d"], ["--missing", "a,b"],
    ],
    ids=ascii,
)  # fmt: skip
def test_options_that_do_not_fit_the_table(attempt, tmp_path, options):
    file = tmp_path / "votes.csv"
    file.write_text("item,ana,ben\n1,a,b\n2,b,b\n3,a,a\n")
    outcome = attempt("annotate", "agreement", str(file), *options)
    assert outcome.code in (2, 3), outcome
