"""Masks: what a row becomes, and what brings it back."""

from __future__ import annotations

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("phonenumbers")

from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.data.encryption import DataKey
from plumbline.data.records import assistant, read_dataset, user, write_dataset
from plumbline.errors import DataError
from sft.personal_data.config import PersonalDataConfig
from sft.personal_data.mask import COLUMN, Masker, unmask_row

KEY = DataKey(bytes(range(32)), "the test")
REVERSIBLE = PersonalDataConfig(reversible=True)


def row(*texts):
    return {
        "messages": [(user, assistant)[n % 2](text) for n, text in enumerate(texts)],
        "form": "single_turn",
    }


def test_a_value_has_one_mask_throughout_a_row():
    masked, counts = Masker.of(PersonalDataConfig()).mask_row(
        row("I am a@x.org, not b@x.org.", "Hello a@x.org! Call +1 202-555-0143.")
    )
    assert [m["content"] for m in masked["messages"]] == [
        "I am [EMAIL_1], not [EMAIL_2].",
        "Hello [EMAIL_1]! Call [PHONE_1].",
    ]
    assert counts == {"email": 3, "phone": 1}
    assert COLUMN not in masked


def test_a_key_brings_back_what_was_masked_also_from_disk(tmp_path):
    original = row("我的邮箱是zhangsan@qq.com，手机13800138000。", "好的，[EMAIL_1] 收到。")
    masked, _ = Masker.of(REVERSIBLE, KEY).mask_row(original)
    # The text had a mask already, which stands for something else.
    assert masked["messages"][0]["content"] == "我的邮箱是[EMAIL_2]，手机[PHONE_1]。"
    assert "zhangsan" not in str(masked)
    other = row("nothing here", "nor here") | {"form": "multi_turn"}
    write_dataset(tmp_path, {"train": [masked, other]}, kind="messages", title="t", description="d")
    first, second = read_dataset(tmp_path, "train")
    assert unmask_row(first, KEY) == original
    assert unmask_row(second, KEY) == other


def test_what_tools_are_called_with_is_masked():
    call = {"function": {"name": "mail", "arguments": {"to": ["a@x.org"], "count": 2}}}
    messages = [user("Send it"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    masked, _ = Masker.of(REVERSIBLE, KEY).mask_row({"messages": messages})
    arguments = masked["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert arguments == {"to": ["[EMAIL_1]"], "count": 2}
    assert unmask_row(masked, KEY)["messages"] == messages


def test_preference_rows_are_masked_in_every_column():
    pair = {
        "prompt": [user("Who is it?")],
        "chosen": [assistant("a@x.org")],
        "rejected": [assistant("b@x.org, a@x.org")],
    }
    masked, _ = Masker.of(REVERSIBLE, KEY).mask_row(pair)
    contents = {m["content"] for part in ("chosen", "rejected") for m in masked[part]}
    assert not any("@" in content for content in contents)
    assert unmask_row(masked, KEY) == pair


def test_a_wrong_key_and_a_changed_text_are_refused():
    masked, _ = Masker.of(REVERSIBLE, KEY).mask_row(row("I am a@x.org", "Hi"))
    with pytest.raises(DataError, match=r"encrypted with the data key [0-9a-f]{8}"):
        unmask_row(masked, DataKey(bytes(32), "another file"))
    changed = {**masked, "messages": [user("I am [EMAIL_1]!"), assistant("Hi")]}
    with pytest.raises(DataError, match="do not belong to the text"):
        unmask_row(changed, KEY)


def test_equal_rows_are_masked_to_equal_bytes():
    one, two = (Masker.of(REVERSIBLE, KEY).mask_row(row("a@x.org", "b"))[0] for _ in range(2))
    assert one == two


def test_without_reversible_nothing_of_the_value_is_left():
    masked, _ = Masker.of(PersonalDataConfig(), KEY).mask_row(row("a@x.org", "b"))
    assert set(masked) == {"messages", "form"}


PIECES = st.sampled_from(
    ["a@x.org", "13800138000", "[EMAIL_1]", "[PHONE_2]", " and ", "，", "4111 1111 1111 1111", "x"]
)


@given(st.lists(st.lists(PIECES, max_size=6).map(" ".join), min_size=2, max_size=3))
@settings(max_examples=60, deadline=None)
def test_masking_and_unmasking_give_any_row_back(texts):
    original = row(*texts)
    masked, _ = Masker.of(REVERSIBLE, KEY).mask_row(original)
    assert unmask_row(masked, KEY) == original
    assert "a@x.org" not in str(masked)


def test_the_command_brings_a_dataset_back(tmp_path, monkeypatch, capsys):
    import json

    from plumbline.commands.app import main

    rows = [row("I am a@x.org", "Hi"), row("nothing", "here")]
    masked = [Masker.of(REVERSIBLE, KEY).mask_row(each)[0] for each in rows]
    data, key, out = tmp_path / "data", tmp_path / "key", tmp_path / "out.jsonl"
    write_dataset(data, {"train": masked}, kind="messages", title="t", description="d")
    key.write_text(KEY.secret.hex())
    command = ["data", "unmask", str(data), str(out), "--key-file", str(key)]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert not ended.value.code
    assert "1 of 2 rows" in capsys.readouterr().out
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert out.stat().st_mode & 0o077 == 0
    with pytest.raises(SystemExit) as ended:
        main(command)  # the file is there already
    assert ended.value.code == 2


def test_the_command_leaves_no_file_where_a_row_cannot_be_unmasked(tmp_path):
    from typer.testing import CliRunner

    from plumbline.commands.app import app

    rows = [Masker.of(REVERSIBLE, KEY).mask_row(row("I am a@x.org", f"Hi {n}"))[0] for n in "ab"]
    rows[1]["messages"][0]["content"] += " as you know"  # not what was masked
    data, key = tmp_path / "data", tmp_path / "key"
    write_dataset(data, {"train": rows}, kind="messages", title="t", description="d")
    key.write_text(KEY.secret.hex())
    arguments = ["data", "unmask", str(data), str(tmp_path / "out.jsonl"), "--key-file", str(key)]
    with pytest.raises(DataError, match="do not belong to the text"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert {file.name for file in tmp_path.iterdir()} == {"data", "key"}
