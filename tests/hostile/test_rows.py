"""Files of rows: broken bytes are an error with the file, broken rows are counted with a reason."""

from __future__ import annotations

import gzip
import json
import random

import pytest

from plumbline.data.records import assistant, user

TALK = [user("Name a colour"), assistant("Red")]
GOOD = {
    "demonstrations": {"messages": TALK},
    "preferences": {"prompt": "Name a colour", "chosen": "Red", "rejected": "No"},
    "unpaired": {"prompt": "Name a colour", "completion": "Red", "label": True},
    "prompts": {"prompt": "Name a colour", "references": ["Red"]},
    "pairs": {"prompt": "Name a colour", "a": "Red", "b": "A shade of blue"},
    "labels": {"item": "1", "person": "ana", "label": "a"},
    "samples": {"prompt": "Name a colour", "response": "Red", "model": "m", "scores": {"s": 1}},
}
#: These are taken whole or not at all.
WHOLE = ("labels", "samples")


def numbered(use, n):
    """A good row that no other repeats."""
    row = json.loads(json.dumps(GOOD[use]))
    text = f"Name {n} colours"
    if use == "demonstrations":
        row["messages"][0]["content"] = text
    elif use == "labels":
        row["item"] = str(n)
    else:
        row["prompt"] = text
    return row


def damaged(generator, value, depth=0):
    """A value with one part of it replaced, removed, wrapped or repeated."""
    if isinstance(value, dict) and value and depth < 3 and generator.random() < 0.8:
        key = generator.choice(sorted(value))
        kind = generator.randrange(4)
        changed = dict(value)
        if kind == 0:
            del changed[key]
        elif kind == 1:
            changed[generator.choice(["", "x" * 300, key.upper(), f" {key}", "\0"])] = changed.pop(
                key
            )
        else:
            changed[key] = damaged(generator, changed[key], depth + 1)
        return changed
    if isinstance(value, list) and value and depth < 3 and generator.random() < 0.8:
        place = generator.randrange(len(value))
        changed = list(value)
        kind = generator.randrange(4)
        if kind == 0:
            del changed[place]
        elif kind == 1:
            changed.insert(place, changed[place])
        else:
            changed[place] = damaged(generator, changed[place], depth + 1)
        return changed
    return generator.choice(
        [None, True, -1, 0, 1e300, float("nan"), float("inf"), 10**30, "", " \n", "\0", "\ud83d",
         "\u202e\x1b[2J", [], {}, [[]], {"": {}}, [None], "x" * 100_000, [value], {"a": value},
         "[" * 500, json.dumps(value), str(value), [value] * 3]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("use", GOOD)
def test_a_damaged_row_is_counted_or_read(attempt, tmp_path, use, seed):
    generator = random.Random(f"{use} {seed}")
    rows = [numbered(use, n) for n in range(6)]
    rows[3] = damaged(generator, rows[3])
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    outcome = attempt("data", "check", str(file), "--as", use, "--json")
    if use in WHOLE and outcome.code == 3:
        found = json.loads(outcome.output)
        assert found["warnings"], found
        return
    outcome.accepted()
    found = json.loads(outcome.output)
    dropped = sum(found["dropped"].values())
    assert found["rows"] == 6 or use == "labels", found
    assert found["kept"] >= (5 if use not in WHOLE else 0), found
    if use not in WHOLE:
        assert found["kept"] + dropped == 6, found
    for reason in found["dropped"]:
        assert len(reason) > 8 and not reason.startswith("'NoneType'"), found


ENDINGS = ["jsonl", "json", "csv", "tsv", "parquet", "arrow"]


def with_bytes():
    """Good rows as bytes that were damaged on the way, in ways that have a defined outcome."""
    generator = random.Random(0)
    text = "".join(f"{json.dumps(numbered('demonstrations', n))}\n" for n in range(50)).encode()
    packed = gzip.compress(text, mtime=0)
    yield "empty.jsonl", b""
    yield "spaces.jsonl", b" \n\n\t\n"
    yield "zeros.jsonl", bytes(2000)
    yield "zeros.parquet", bytes(2000)
    yield "bomb.jsonl.gz", lambda: gzip.compress(b'{"a": "' + bytes(100 << 20) + b'"}', 1)
    yield "long.jsonl", lambda: b'{"messages": "' + b"x" * (101 << 20) + b'"}'
    yield "twice.jsonl.gz", gzip.compress(packed, mtime=0)
    yield "name.jsonl.zst", text
    yield "cut.json", b"[" + text.replace(b"\n", b",")[:1500]
    yield "latin.csv", "messages,a\ncafé,b\n".encode("latin-1")
    yield "no rows.json", b'{"data": []}'
    yield "page.jsonl", b"<!DOCTYPE html><html><body>404</body></html>"
    yield "pointer.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    yield "python.jsonl", b"{'messages': [{'role': 'user', 'content': 'a'}]}\n" * 3
    yield "yaml.jsonl", b"messages:\n- role: user\n  content: a\n"
    yield "text.txt", b"hello"
    yield "table.xlsx", b"PK\x03\x04" + bytes(100)
    for number in range(15):
        start = generator.randrange(20, len(packed) - 20)
        yield f"flipped-{number}.jsonl.gz", packed[:start] + b"\xff" + packed[start + 1 :]
        yield f"cut-{number}.jsonl.gz", packed[:start]
    for number in range(15):
        yield (
            f"random-{number}.{generator.choice(ENDINGS)}",
            generator.randbytes(generator.randrange(1, 3000)),
        )


BROKEN = list(with_bytes())


@pytest.mark.parametrize("name_and_bytes", BROKEN, ids=lambda pair: pair[0])
def test_bytes_that_are_no_rows(attempt, tmp_path, name_and_bytes):
    name, content = name_and_bytes
    file = tmp_path / name
    file.write_bytes(content() if callable(content) else content)
    outcome = attempt("data", "check", str(file), "--as", "demonstrations", "--json")
    found = json.loads(outcome.output)
    if outcome.code:
        assert outcome.code == 3 and found["kept"] == 0, found
        assert found["warnings"], found
    else:  # a change of a byte that unpacks to something else
        assert name.startswith(("flipped", "python")), found
        assert found["kept"] + sum(found["dropped"].values()) == found["rows"]


def line_by_line():
    generator = random.Random(2)
    for number in range(20):
        yield number, generator.choice(
            [b"{", b"}", b'{"messages": ', b"\xff\xfe", b"null", b"5", b'"x"', b"[1]", b"{'a': 1}",
             b'{"messages": NaN}', b'{"messages": [}', b"\x00", b'{"a": 1}{"b": 2}', b"//",
             b'{"messages": [{"role": "user", "content": "a"}]},', b"[" * 3000, b'{"a": ' * 3000]
        )  # fmt: skip


@pytest.mark.parametrize(("number", "line"), list(line_by_line()))
def test_one_damaged_line_is_one_row_less(attempt, tmp_path, number, line):
    rows = [json.dumps(numbered("demonstrations", n)).encode() for n in range(20)]
    rows[number] = line
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(rows))
    outcome = attempt("data", "check", str(file), "--as", "demonstrations", "--json")
    found = json.loads(outcome.output)
    if number == 0 and line.startswith(b"["):  # then it looks like one list
        assert found["warnings"]
        return
    outcome.accepted()
    assert found["kept"] == 19 and sum(found["dropped"].values()) == 1, found
    assert list(found["dropped_rows"].values()) == [[number + 1]], found


@pytest.mark.parametrize(
    "arguments",
    [
        ["--as", "nothing"], ["--as", ""], ["--as", "\ud83d"], ["--columns", "prompt"],
        ["--columns", "=x"], ["--columns", "nothing=messages"], ["--format", "nothing"],
        ["--format", "os.path"], ["--model", "/nonexistent"],
    ],
    ids=ascii,
)  # fmt: skip
def test_options_of_reading_that_cannot_be(attempt, tmp_path, arguments):
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(GOOD['demonstrations'])}\n")
    given = [
        "data",
        "check",
        str(file),
        *([] if "--as" in arguments else ["--as", "demonstrations"]),
    ]
    outcome = attempt(*given, *arguments)
    assert outcome.code in (2, 3, 4), outcome


@pytest.mark.parametrize("name", ["none.jsonl", "", "a\0b", "x" * 5000, "org/none", "/", "-"])
def test_a_place_without_rows(attempt, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    outcome = attempt("data", "check", name, "--as", "prompts")
    assert outcome.code in (1, 2, 3), outcome


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_row_for_people_is_left_out_before_the_server_is_asked(attempt, tmp_path, seed):
    generator = random.Random(f"push {seed}")
    rows = [numbered("pairs", n) for n in range(4)]
    rows[1] = damaged(generator, rows[1])
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    outcome = attempt("annotate", "push", str(file), "--home", str(tmp_path), "--person", "ana")
    outcome.refused(2, "There is no labelling site")


@pytest.mark.parametrize("name_and_bytes", BROKEN[:18], ids=lambda pair: pair[0])
def test_bytes_that_are_no_pairs(attempt, tmp_path, name_and_bytes):
    name, content = name_and_bytes
    file = tmp_path / name
    file.write_bytes(content() if callable(content) else content)
    outcome = attempt("annotate", "push", str(file), "--home", str(tmp_path), "--person", "ana")
    assert outcome.code in (2, 3), outcome


@pytest.mark.parametrize("use", ["demonstrations", "preferences", "prompts", "pairs", "unpaired"])
def test_case_10_half_a_character_is_replaced_everywhere_alike(attempt, tmp_path, use):
    """A text that was cut by length may end with half of an emoji."""
    row = json.loads(json.dumps(GOOD[use]).replace("Name a colour", "Name a smile \\ud83d"))
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(row)}\n")
    found = json.loads(attempt("data", "check", str(file), "--as", use, "--json").output)
    assert (found["kept"], found["dropped"]) == (1, {})
    assert any("half characters were replaced by U+FFFD in 1 row" in w for w in found["warnings"])
    assert "smile \ufffd" in json.dumps(found["example"], ensure_ascii=False)


def test_case_10_half_a_character_is_said_before_it_is_sent_to_people(attempt, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(GOOD["pairs"] | {"a": "Red \ud83d"}) + "\n")
    outcome = attempt("annotate", "push", str(file), "--home", str(tmp_path), "--person", "ana")
    outcome.refused(2, "There is no labelling site")
    assert "half characters were replaced by U+FFFD in 1 row" in outcome.said
