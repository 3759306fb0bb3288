"""Values that look like something else: grades as labels, JSON as a response, numbers as text."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbline.data.files import read_rows
from plumbline.errors import DataError

HUGE = 10**350  # a whole number of JSON that no float holds


def thumbs(labels):
    return [
        {"prompt": f"Name {n} colours", "completion": "Red", "label": label}
        for n, label in enumerate(labels)
    ]


@pytest.mark.parametrize(
    "labels", [[1, 2, 3, 4, 5], [0, 1, 2, 3], [1, 2, 1, 2], [0.9, 0.1, 1.0], ["1", "4", "5"]]
)
def test_a_grade_of_one_is_not_true(read, labels):
    examples, report = read(thumbs(labels), "unpaired")
    assert examples == []
    ((reason, count),) = report.dropped.reasons().items()
    assert count == len(labels)
    assert "a grade as its label, not true or false" in reason


def test_a_nought_beside_minus_one_is_not_known_to_be_bad(read):
    examples, report = read(thumbs([-1, 0, 1, -1, 0, 1]), "unpaired")
    assert examples == []
    assert "with -1 and 0" in next(iter(report.dropped.reasons()))


def test_one_odd_label_is_one_row_less(read):
    examples, report = read(thumbs([1, 0, 1, 7, 1]), "unpaired")
    assert [example.label for example in examples] == [True, False, True, True]
    assert report.dropped.reasons() == {"has a label that is neither true nor false": 1}


def test_labels_in_words_and_as_tables_write_numbers(read):
    words = ["yes", "No", "1.0", "0.0", "positive", "negative", "accepted", "rejected"]
    examples, _ = read(thumbs(words), "unpaired")
    assert [example.label for example in examples] == [True, False] * 4


def test_a_label_of_demonstrations_that_is_no_truth_is_counted_as_not_used(read):
    examples, report = read(thumbs([1, 2, 3]))
    assert len(examples) == 3 and {example.label for example in examples} == {None}
    assert report.columns_unused == {"label": 3}


def test_a_response_that_is_json_stays_as_it_is(read):
    asked = ["[2, 3, 5]", '["a", "b"]', '{"text": ["x", "y"], "more": 1}', '{"text": "x"}']
    examples, _ = read([{"question": f"List {n}", "answer": t} for n, t in enumerate(asked)])
    assert [example.response[0]["content"] for example in examples] == asked
    (pair,), _ = read(
        [{"prompt": "Colours", "chosen": '["red", "blue"]', "rejected": '["red"]'}], "preferences"
    )
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == (
        '["red", "blue"]',
        '["red"]',
    )


def test_squad_answers_are_read_from_a_cell_of_a_table(read):
    cell = '{"text": ["Oslo", "in Oslo"], "answer_start": [3, 0]}'
    (example,), _ = read([{"question": "Where?", "context": "Oslo.", "answers": cell}])
    assert example.response[0]["content"] == "Oslo"
    assert example.references == ("Oslo", "in Oslo")


def test_several_answers_of_a_cell_are_several(read):
    (example,), _ = read([{"question": "Where?", "answers": '["Paris", "paris"]'}])
    assert example.response[0]["content"] == "Paris"
    assert example.references == ("Paris", "paris")


@pytest.mark.parametrize(
    "dialogue",
    [
        "\r\n\r\nHuman: a\r\n\r\nAssistant:", "Human: a\nAssistant:", "\n\nHuman: a\nAssistant:",
    ],
)  # fmt: skip
def test_marks_of_hh_with_other_line_ends(read, dialogue):
    (pair,), _ = read([{"prompt": dialogue, "chosen": " b", "rejected": " c"}], "preferences")
    assert pair.prompt == [{"role": "user", "content": "a"}]
    (whole,), _ = read([{"chosen": f"{dialogue} b", "rejected": f"{dialogue} c"}], "preferences")
    assert (whole.prompt, whole.chosen[0]["content"]) == (pair.prompt, "b")


def test_lines_within_a_turn_of_hh_are_no_turns(read):
    text = "\n\nHuman: a\n\nAssistant: b\nHuman: c"
    (pair,), _ = read([{"chosen": text, "rejected": "\n\nHuman: a\n\nAssistant: d"}], "preferences")
    assert pair.chosen[0]["content"] == "b\nHuman: c"


def test_a_name_twice_in_turn_is_a_line_of_the_text(read):
    prompt = "Human: summarise\nHuman: an error was made\nby me"
    (pair,), _ = read([{"prompt": prompt, "chosen": "b", "rejected": "c"}], "preferences")
    assert [turn["content"] for turn in pair.prompt] == [prompt.removeprefix("Human: ")]


def test_the_right_option_of_a_column_with_holes(read):
    row = {"question": "Which?", "options": ["red", "blue"], "correct": "1.0"}
    (example,), _ = read([row])
    assert example.response[0]["content"] == "B) blue"


def test_messages_by_column_of_different_lengths_lose_no_turn(read):
    by_column = {"role": ["user", "assistant", "user"], "content": ["a", "b"]}
    _, report = read([{"messages": by_column}])
    assert "3 under 'role', 2 under 'content'" in next(iter(report.dropped.reasons()))


@pytest.mark.parametrize("margin", ["nan", "inf", float("inf"), HUGE, True, [1]])
def test_a_margin_is_a_finite_number(read, margin):
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "margin": margin}
    examples, report = read([row], "preferences")
    assert examples == [] and "'margin' is" in next(iter(report.dropped.reasons()))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), HUGE, True])
def test_a_score_that_is_no_number_decides_nothing(read, score):
    pair = {"question": "a", "answer_0": "b", "answer_1": "c", "score_0": score, "score_1": 0}
    ranked = {
        "prompt": "a",
        "answers": [{"answer": "b", "rank": score}, {"answer": "c", "rank": 1}],
    }
    graded = {"prompt": "a", "response_1": "b", "response_2": "c", "preference_strength": score}
    for row in (pair, ranked, graded):
        examples, report = read([row], "preferences")
        assert examples == [] and len(report.dropped) == 1


@pytest.mark.parametrize(
    ("columns", "cells", "better"),
    [
        ("prompt,response_1,response_2,preference_strength", "a,b,c,-2", "b"),
        ("prompt,response_0,response_1,better_response_id", "a,b,c,1", "c"),
        ("history,human_ref_A,human_ref_B,labels", "a,b,c,0.0", "c"),
        ("question,answer_0,answer_1,score_0,score_1", "a,b,c,-0.5,0.5", "c"),
        ("prompt,response_a,response_b,winner_model_a,winner_model_b", "a,b,c,True,False", "b"),
    ],
)
def test_a_verdict_in_a_cell_of_csv(tmp_path, columns, cells, better):
    from preference.sources import read_preferences

    (tmp_path / "rows.csv").write_text(f"{columns}\n{cells}\n")
    (row,), _ = read_preferences(tmp_path / "rows.csv")
    assert row["chosen"][0]["content"] == better


def test_the_right_option_goes_by_the_letters_that_a_file_gives(read):
    choices = {"text": ["4", "3", "2", "1"], "label": ["1", "2", "3", "4"]}
    for answer in (3, "3", 3.0):
        (example,), _ = read([{"question": "q", "choices": choices, "answerKey": answer}])
        assert example.response[0]["content"] == "3) 2"
    (by_place,), _ = read([{"question": "q", "choices": ["0", "4", "2"], "answer": 1}])
    assert by_place.response[0]["content"] == "B) 4"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(2, "the place of another"), (-1, "none of its options"), (1.5, "none of its options"),
     (float("inf"), "not text"), (HUGE, "not text")],
)  # fmt: skip
def test_a_right_option_that_is_not_clear(read, answer, reason):
    _, report = read([{"question": "q", "options": [1, 2, 3], "answer": answer}])
    assert report.kept == 0
    assert reason in next(iter(report.dropped.reasons()))


def test_a_repeated_key_is_not_decided_by_its_last_value(tmp_path):
    line = '{"prompt": "a", "prompt": "b", "completion": "c"}'
    for name, text in (("rows.jsonl", f"{line}\n"), ("rows.json", f'[{line}, {{"prompt": "d"}}]')):
        (tmp_path / name).write_text(text)
        first, *others = read_rows(tmp_path / name)
        assert first.problem == "has 'prompt' twice in one object"
        assert [row.record for row in others] == [{"prompt": "d"}] * (name == "rows.json")


def test_files_put_together_with_their_marks(tmp_path):
    line = b'\xef\xbb\xbf{"prompt": "a"}\n'
    (tmp_path / "rows.jsonl").write_bytes(line * 2)
    assert [row.record for row in read_rows(tmp_path / "rows.jsonl")] == [{"prompt": "a"}] * 2


def test_a_first_line_that_names_the_separator(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"sep=;\r\na;b\r\n1,5;2\r\n")
    (row,) = read_rows(tmp_path / "rows.csv")
    assert (row.place, row.record) == ("line 3", {"a": "1,5", "b": "2"})


def test_a_value_of_a_table_that_python_lacks_is_one_row_less(tmp_path):
    texts = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"x\xff")]
    )
    pq.write_table(pa.table({"text": texts}), tmp_path / "text.parquet")
    pq.write_table(
        pa.table({"when": pa.array([0, 2**61], pa.timestamp("us"))}), tmp_path / "when.parquet"
    )
    for name in ("text", "when"):
        good, bad = read_rows(tmp_path / f"{name}.parquet")
        assert good.record is not None
        assert bad.record is None and f"a value under {name!r}" in bad.problem


def test_decimals_are_numbers_and_a_map_with_a_key_twice_costs_no_row(tmp_path):
    columns = {
        "weight": pa.array([Decimal("0.50"), None], pa.decimal128(5, 2)),
        "extra": pa.array([[("k", 1), ("k", 2)], []], pa.map_(pa.string(), pa.int64())),
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    first, second = read_rows(tmp_path / "rows.parquet")
    assert first.record == {"weight": 0.5, "extra": [("k", 1), ("k", 2)]}
    assert second.record["weight"] is None


def test_a_table_with_a_column_twice_is_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="'prompt' more than once"):
        list(read_rows(tmp_path / "rows.parquet"))


def test_prompts_that_are_merged_are_counted(tmp_path):
    from evaluation.tasks.sources import TaskFileConfig, read_items

    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "references": ["b"]}\n{"prompt": "a", "references": ["c"]}\n')
    (item,), report = read_items(path, TaskFileConfig())
    assert item.references == ("b", "c")
    assert report.warnings() == [
        "1 rows repeat the prompt of an earlier one, which was given their references"
    ]
