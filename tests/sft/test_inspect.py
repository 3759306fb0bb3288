"""The page of a dataset: what it counts, what it marks, and that data cannot write on it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from plumbline.commands.app import app
from plumbline.data.records import assistant, user
from sft.inspect import personal_data
from sft.inspect.content import describe, histogram, summary_of
from sft.inspect.page import render
from sft.inspect.personal_data import find_personal_data, shortened
from sft.personal_data import recognizer
from sft.personal_data.table import RECOGNIZERS


def test_a_histogram_counts_every_number_once():
    bars = histogram([0, 1, 1, 2, 9], bars=5)
    assert [(bar.start, bar.end, bar.rows) for bar in bars] == [
        (0, 2, 3), (2, 4, 1), (4, 6, 0), (6, 8, 0), (8, 10, 1)
    ]  # fmt: skip
    many = [*range(100), 10_000]  # the last bar holds what is beyond the 99th percentile
    bars = histogram(many, bars=10)
    assert sum(bar.rows for bar in bars) == 101
    assert bars[-1].end == 10_001
    assert histogram([]) == []
    assert summary_of([3, 1, 2]) == {"shortest": 1, "median": 2, "95 % at most": 3, "longest": 3}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("邮箱zs@qq.com。", [("e-mail address", "zs@qq.com")]),
        ("card 4111 1111 1111 1111", [("card number", "4111 1111 1111 1111")]),
        ("card 4111 1111 1111 1112", []),  # its check digit is wrong
        ("IBAN DE89 3704 0044 0532 0130 00", [("IBAN", "DE89 3704 0044 0532 0130 00")]),
        ("IBAN DE88 3704 0044 0532 0130 00", []),
        ("call +44 20 7946 0018", [("telephone number", "+44 20 7946 0018")]),
        ("at 192.168.0.1, not 1.2.3.4.5 or 300.1.1.1", [("IP address", "192.168.0.1")]),
        ("打13812345678吧", [("telephone number", "13812345678")]),
        # The example of GB 11643-1999.
        ("11010519491231002X", [("Chinese identity number", "11010519491231002X")]),
        ("110105194912310021", []),
        ("It cost 1,000,000 in 2024.", []),
    ],
)
def test_personal_data_is_known_by_its_form(text, kinds):
    pytest.importorskip("phonenumbers")
    assert find_personal_data(text) == kinds


def test_every_kind_has_a_title_and_telephone_numbers_need_their_package(monkeypatch):
    assert len({row.title for row in RECOGNIZERS.values()}) == len(RECOGNIZERS)
    monkeypatch.setattr(recognizer, "find_spec", lambda name: None)
    personal_data._masker.cache_clear()
    found = find_personal_data("a@b.org or 13812345678")
    personal_data._masker.cache_clear()
    assert found == [("e-mail address", "a@b.org")]


def test_personal_data_is_not_shown_whole():
    assert shortened("john@example.org") == "jo…rg"
    assert shortened("secret") == "…"


def page_of(tmp_path, rows, *options):
    path, page = tmp_path / "rows.jsonl", tmp_path / "page.html"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["data", "inspect", str(path), "--output", str(page), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None, result.exception
    return page.read_text("utf-8")


def test_the_page_marks_what_is_learnt_and_obeys_nothing(tmp_path):
    letter = {"messages": [user("Write to ann@example.org please"), assistant("I wrote to her.")]}
    rows = [
        {"messages": [
            user("<script>alert(1)</script> \u202e?"), assistant("Not learnt.") | {"weight": 0},
            user("And now, in a few more words than before?"),
            assistant("Learnt, of course it is."),
        ]},
        letter,
        letter,
        {"text": "?"},
    ]  # fmt: skip
    page = page_of(tmp_path, rows)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\u202e?" in page
    assert "<script>alert" not in page
    assert '<span class="learnt">Learnt, of course it is.</span>' in page
    assert '<span class="learnt">Not learnt.</span>' not in page and "Not learnt." in page
    assert "repeats an earlier row" in page
    assert "e-mail address" in page and "an…rg" in page
    assert "ann@example.org" in page  # in a sample, as the row has it
    assert "http" not in page.replace("http-equiv", "")


def test_a_model_s_template_decides_on_the_mask(tmp_path, model_of_kind):
    rows = [{"messages": [user("One?"), assistant("Two.")]} for _ in range(3)]
    page = page_of(tmp_path, rows, "--model", str(model_of_kind("think")))
    block = "&lt;think&gt;\n\n&lt;/think&gt;\n\nTwo.&lt;|im_end|&gt;"
    assert f'<span class="learnt">{block}</span>' in page
    assert "the model&#39;s window is" in page or "the model's window is" in page


def test_preferences_show_both_responses(tmp_path):
    rows = [{"prompt": "Name a colour", "chosen": "Red", "rejected": "No"}] * 2
    page = page_of(tmp_path, [rows[0]], "--as", "preferences")
    assert "<strong>chosen</strong>" in page and "<strong>rejected</strong>" in page
    assert '<span class="learnt">Red</span>' in page


def test_everything_is_counted():
    messages = [user("你好吗"), assistant("我很好，谢谢你的关心和问候。")]
    rows = [{"messages": messages, "form": "single_turn", "origin": "a", "row": 1}]
    content = describe("x", "demonstrations", {"train": rows, "test": []}, {"reason": 3})
    assert content.counts["split"] == {"train": 1, "test": 0}
    assert content.languages == [("zh", 1)]
    assert content.left_out == [("reason", 3)]
    assert "reason" in render(content)


def test_rows_that_are_left_out_are_counted_behind_those_that_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("plumbline.commands.data_inspect.MOST_ROWS", 2)
    good = [{"messages": [user(f"Name {n}"), assistant("Red")]} for n in range(5)]
    page = page_of(tmp_path, [*good, *[{"messages": []}] * 3])
    assert "shows the first 2 rows; what was left out is counted of all" in page
    assert "8 rows of the format messages" in page
