"""The one reader: what each kind of row becomes, and what every row left out says."""

from __future__ import annotations

import sys

import pytest

from plumbline.data.records import assistant, problem_with, user
from plumbline.errors import DataError

RED = {
    "prompt": [user("Name a colour")],
    "chosen": [assistant("Red")],
    "rejected": [assistant("No")],
}
TALK = [user("Name a colour"), assistant("Red")]
BAD_TALK = [user("Name a colour"), assistant("No")]


def only(examples):
    (example,) = examples
    return example


def reasons(report):
    return [(row["row"], row["reason"]) for row in report.dropped.rows]


# ------------------------------------------------------------ preferences (cases 05, 06, 07, h-05)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Name a colour", "chosen": "Red", "rejected": "No"},
        {"prompt": "Name a colour", "chosen": TALK, "rejected": BAD_TALK},
        {"prompt": [user("Name a colour")], "chosen": TALK, "rejected": BAD_TALK},
        {"prompt": [user("Name a colour")], "chosen": TALK, "rejected": [assistant("No")]},
        {"prompt": "Name a colour", "chosen": assistant("Red"), "rejected": assistant("No")},
        {"chosen": TALK, "rejected": BAD_TALK},
        {"instruction": "Name a colour", "input": "", "chosen": "Red", "rejected": "No"},
        {"question": "Name a colour", "chosen": "Red", "rejected": "No"},
        {
            "conversations": [{"from": "human", "value": "Name a colour"}],
            "chosen": "Red",
            "rejected": {"from": "gpt", "value": "No"},
        },
        {
            "prompt": "\n\nHuman: Name a colour\n\nAssistant:",
            "chosen": " Red",
            "rejected": " No",
        },
        {
            "prompt": "\n\nHuman: Name a colour\n\nAssistant:",
            "chosen": "\n\nHuman: Name a colour\n\nAssistant: Red",
            "rejected": "\n\nHuman: Name a colour\n\nAssistant: No",
        },
        {
            "prompt": "Name a colour",
            "chosen": "\n\nHuman: Name a colour\n\nAssistant: Red",
            "rejected": "\n\nHuman: Name a colour\n\nAssistant: No",
        },
        {
            "chosen": "\n\nHuman: Name a colour\n\nAssistant: Red",
            "rejected": "\n\nHuman: Name a colour\n\nAssistant: No",
        },
        {"messages": TALK, "rejected_response": "No"},
    ],
    ids=[
        "text", "text and dialogues", "prompt repeated", "repeated once", "single messages",
        "implicit prompt", "instruction", "question", "ShareGPT", "open HH prompt", "HH repeated",
        "plain prompt and HH", "HH", "ms-swift",
    ],
)  # fmt: skip
def test_a_prompt_with_two_responses_however_it_is_written(read, record):
    examples, report = read([record], "preferences")
    example = only(examples)
    assert (example.prompt, example.chosen, example.rejected) == tuple(RED.values())
    assert not report.dropped.rows


def test_the_fuller_prompt_is_taken_where_dialogues_hold_more(read):
    before = [user("Hi"), assistant("Hello"), user("Name a colour")]
    record = {
        "system": "Be kind",
        "prompt": "Name a colour",
        "chosen": [*before, assistant("Red")],
        "rejected": [*before, assistant("No")],
    }
    example = only(read([record], "preferences")[0])
    assert example.prompt == [{"role": "system", "content": "Be kind"}, *before]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {
                "prompt": [user("a")],
                "chosen": [assistant("GOOD"), user("c"), assistant("d")],
                "rejected": [assistant("BAD"), user("c"), assistant("d")],
            },
            "'chosen' has 3 messages after the prompt; one response is compared",
        ),
        (
            {
                "prompt": [user("a")],
                "chosen": [user("a"), assistant("GOOD"), user("c"), assistant("d")],
                "rejected": [user("a"), assistant("BAD"), user("c"), assistant("d")],
            },
            "'chosen' has 3 messages after the prompt; one response is compared",
        ),
        (
            {"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("y")]},
            "chosen and rejected answer different prompts",
        ),
        (
            {
                "prompt": "b",
                "chosen": [user("a"), assistant("x")],
                "rejected": [user("a"), assistant("y")],
            },
            "'chosen' is a dialogue that does not hold the prompt",
        ),
        ({"chosen": "x", "rejected": "y"}, "has the columns chosen, rejected, but no prompt"),
        (
            {"system": "Be kind", "chosen": "x", "rejected": "y"},
            "has the columns system, chosen, rejected, but no prompt",
        ),
        ({"prompt": "q", "chosen": None, "rejected": "y"}, "has null under 'chosen'"),
        (
            {"prompt": "q", "chosen": [user("x")], "rejected": "y"},
            "'chosen' does not end with the assistant's turn",
        ),
        (
            {"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": " x\n\nHuman: b", "rejected": " y"},
            "'chosen' holds turns of a dialogue behind the response",
        ),
        (
            {
                "chosen": "Note: \n\nHuman: Hi\n\nAssistant: x",
                "rejected": "\n\nHuman: Hi\n\nAssistant: y",
            },
            "'chosen' has text before the first 'Human:'",
        ),
        (
            {"prompt": "q", "chosen": "x", "rejected": "y", "images": ["1.jpg"]},
            "has images, audio or video, and this suite reads text alone",
        ),
        (
            {"prompt": "q", "chosen": "x", "rejected": "y", "tools": [{"name": "weather"}]},
            "holds something under 'tools', which preferences of the format preference do not use",
        ),
        (
            {
                "prompt": "q",
                "chosen": [
                    {"role": "assistant", "content": "", "tool_calls": [{"name": "weather"}]}
                ],
                "rejected": "y",
            },
            "'chosen' calls tools, which preferences do not use",
        ),
        (
            {
                "prompt": "q",
                "chosen": [assistant("x") | {"reasoning_content": "Hm."}],
                "rejected": "y",
            },
            "'chosen' has reasoning apart from its text, which preferences do not use: leave it "
            "out, or write it into the text",
        ),
    ],
)
def test_preferences_that_are_none_say_why(read, record, reason):
    examples, report = read([record], "preferences")
    assert not examples
    assert reasons(report) == [(1, reason)]


# ------------------------------------------- columns that change the meaning (08), bad rows (09)


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        (
            {
                "instruction": "And in winter?",
                "input": "",
                "output": "Four degrees.",
                "system": "You are a weather clerk.",
                "history": [["How warm is July?", "Eighteen degrees."]],
            },
            [
                {"role": "system", "content": "You are a weather clerk."},
                user("How warm is July?"),
                assistant("Eighteen degrees."),
                user("And in winter?"),
                assistant("Four degrees."),
            ],
        ),
        (
            {"prompt": "hi", "completion": "ho", "system": "Be short."},
            [{"role": "system", "content": "Be short."}, user("hi"), assistant("ho")],
        ),
        (
            {"system_prompt": "Be short.", "question": "hi", "response": "ho"},
            [{"role": "system", "content": "Be short."}, user("hi"), assistant("ho")],
        ),
        (
            {"context": "It is red.", "question": "Which colour?", "answer": "Red"},
            [user("It is red.\n\nWhich colour?"), assistant("Red")],
        ),
        (
            {"instruction": "Which colour?", "context": "It is red.", "response": "Red"},
            [user("Which colour?\n\nIt is red."), assistant("Red")],
        ),
        (
            {"question": "2 + 2?", "options": ["A)3", "B)4"], "rationale": "Four.", "correct": "B"},
            [user("2 + 2?\n\nA) 3\nB) 4"), assistant("Four.")],
        ),
        (
            {"prompt": [user("a")], "completion": [user("a"), assistant("b")]},
            [user("a"), assistant("b")],
        ),
        ({"prompt": "a", "completion": assistant("b")}, [user("a"), assistant("b")]),
        (
            {"instruction": "Say hi", "input": float("nan"), "output": "hi"},
            [user("Say hi"), assistant("hi")],
        ),
        ({"prompt": "a", "response": "b"}, [user("a"), assistant("b")]),
    ],
    ids=[
        "Alpaca with history",
        "system",
        "OpenOrca",
        "passage before",
        "Dolly",
        "AQuA",
        "prompt repeated",
        "mixed",
        "empty cell",
        "response",
    ],
)
def test_what_belongs_to_the_question_is_read_with_it(read, record, messages):
    assert only(read([record])[0]).messages == messages


def test_tools_reasoning_and_weights_are_read(read):
    tools = [{"type": "function", "function": {"name": "weather"}}]
    call = {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns = [
        user("weather?"),
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
        {"role": "tool", "content": "18"},
        {"role": "assistant", "content": "18 degrees", "reasoning_content": "It says 18."},
    ]
    example = only(read([{"messages": turns, "tools": tools}])[0])
    assert (example.messages, example.tools) == (turns, tuple(tools))
    (example,) = read([{"prompt": "2+2", "reasoning": "two and two", "response": "4"}])[0]
    assert example.response == [assistant("4") | {"reasoning_content": "two and two"}]


def test_a_column_that_changes_the_meaning_and_is_not_read_leaves_the_row_out(read):
    rows = [{"messages": TALK, "context": "a passage"}, {"messages": TALK, "context": ""}]
    examples, report = read(rows)
    assert len(examples) == 1
    assert reasons(report) == [
        (
            1,
            "holds something under 'context', which demonstrations of the format messages do not "
            "use",
        )
    ]
    assert len(read(rows, ignored_columns=("context",))[0]) == 2


def test_other_columns_are_counted_and_named_once(read):
    rows = [
        {"id": n, "messages": [user("x") | {"time": n}, assistant("y")], "from": "web" if n else ""}
        for n in range(3)
    ]  # fmt: skip
    _, report = read(rows)
    assert report.columns_used == {"messages": "messages"}
    assert report.columns_unused == {"id": 3, "from": 2, "messages[].time": 3}
    assert "columns that are not used: id (3 rows)" in report.notes()[1]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": None}, "has null under 'messages'"),
        ({"messages": 5}, "'messages' is a number, not a list of messages"),
        ({"messages": "hello"}, "'messages' is text, not a list of messages"),
        ({"messages": ["a", "b"]}, "'messages' has a turn 1 that is text, not an object"),
        ({"messages": []}, "'messages' has no message"),
        (
            {"messages": [{"role": ["user"], "content": "x"}]},
            "'messages' has a turn 1 by ['user']; turns are by system, user, assistant and tool",
        ),
        ({"messages": [user("x")]}, "ends with the user's turn, so there is no response to learn"),
        ({"text": "x"}, "has the columns text, but no messages"),
        (
            {"prompt": "x", "completion": "y"},
            "is of the format prompt_completion, and its file was recognized as messages by "
            "its first rows",
        ),
        ({"messages": TALK, "system": 5}, "has a number as the system message, not text"),
        (
            {"messages": [{"role": "system", "content": "a"}, *TALK], "system": "b"},
            "has a system message beside another one in its messages",
        ),
        (
            {"messages": [user("x") | {"images": ["1.jpg"]}, assistant("y")]},
            "'messages' has 'images' in turn 1, and this suite reads text alone",
        ),
        (
            {"messages": [user([{"text": "x", "image": "1.jpg"}]), assistant("y")]},
            "'messages' has 'image' in turn 1, and this suite reads text alone",
        ),
        ({"messages": TALK, "tools": "weather"}, "'tools' is text, not a list of functions"),
    ],
)
def test_one_malformed_row_is_one_row_less(read, record, reason):
    examples, report = read([{"messages": TALK}, record, {"messages": TALK}])
    assert len(examples) == 2
    assert reasons(report) == [(2, reason)]
    assert (report.rows, report.kept) == (3, 2)
    with pytest.raises(DataError, match=r"rows.jsonl, line 2 "):
        read([{"messages": TALK}, record], strict=True)


def test_damaged_lines_are_counted_with_the_others(read, tmp_path):
    _, report = read([{"messages": TALK}])
    with (tmp_path / "rows.jsonl").open("a") as stream:
        stream.write('{"messages": [\n[]\n{"messages": [{"role": "user", "content": "\\ud83d"}]}\n')
    from plumbline.data.reader import ExampleReader
    from plumbline.data.uses import USES

    reader = ExampleReader(tmp_path / "rows.jsonl", USES["prompts"])
    assert [row.example.prompt for row in reader][-1] == [user("\ufffd")]
    report = reader.report
    assert [number for number, _ in reasons(report)] == [2, 3]
    assert (report.rows, report.kept, report.repaired) == (4, 2, 1)
    assert "half characters were replaced by U+FFFD in 1 rows" in report.notes()


def test_a_file_without_what_the_use_needs_says_so_for_each_row(read):
    examples, report = read([{"prompt": "a"}, {"colour": "red"}])
    assert not examples
    assert reasons(report) == [
        (
            1,
            "is of the format prompt_completion and has no response, which demonstrations need "
            "(its columns are prompt). Say which column holds which part, probably columns: "
            "{prompt: prompt, response: COLUMN} (on the command line --columns "
            "prompt=prompt,response=COLUMN)",
        ),
        (
            2,
            "is of no format that is known for demonstrations (its columns are colour). Say which "
            "column holds which part, columns: {prompt: COLUMN, response: COLUMN} (on the command "
            "line --columns prompt=COLUMN,response=COLUMN)",
        ),
    ]


def test_the_first_rows_decide_for_the_whole_file(read):
    rows = [{"prompt": "a", "completion": "b"}] * 150 + [{"messages": TALK}] * 300
    examples, report = read(rows)
    assert (report.format, len(examples)) == ("prompt_completion", 150)


def test_weights_of_turns_and_rows(read):
    bad = assistant("bad") | {"weight": 0}
    example = only(read([{"messages": [user("a"), bad, user("c"), assistant("good")]}])[0])
    assert example.messages[1] == bad
    assert only(read([{"messages": TALK, "weight": 0}])[0]).weight == 0


# ------------------------------------------------------------------------ a setting for any table


def test_columns_of_any_table_are_named_by_a_setting(read):
    rows = [{"q": "Name a colour", "good": "Red", "bad": "No", "meta": {"who": "be kind"}}]
    named = {"prompt": "q", "chosen": "good", "rejected": "bad", "system": "meta.who"}
    examples, report = read(rows, "preferences", columns=named)
    example = only(examples)
    assert example.prompt == [{"role": "system", "content": "be kind"}, user("Name a colour")]
    assert (example.chosen, example.rejected) == ([assistant("Red")], [assistant("No")])
    assert report.format == "columns"
    # Parts that the setting leaves out are found under their own names.
    rows = [{"q": "x", "response": "y"}]
    assert only(read(rows, columns={"prompt": "q"})[0]).messages == [user("x"), assistant("y")]


def test_a_setting_of_columns_that_cannot_be_says_what_is_meant(read):
    with pytest.raises(
        DataError,
        match=r"no column 'quesion', which columns\.prompt names.* Did you mean 'question'\?",
    ):
        read(
            [{"question": "x", "answer": "y"}], columns={"prompt": "quesion", "response": "answer"}
        )
    with pytest.raises(ValueError, match=r"no part of a row 'promt'\. Did you mean 'prompt'"):
        read([{"q": "x"}], columns={"promt": "q"})
    with pytest.raises(ValueError, match=r"'q' is given to more than one part"):
        read([{"q": "x"}], columns={"prompt": "q", "response": "q"})
    with pytest.raises(DataError, match="read as columns, has no response"):
        read([{"q": "x"}], columns={"prompt": "q"})


def test_a_format_can_be_named(read):
    row = {"question": "x", "answer": "y", "prompt": "Q: x", "completion": "y"}
    assert read([row])[1].format == "question_answer"
    examples, report = read([row], format="prompt_completion")
    assert only(examples).prompt == [user("Q: x")]
    assert report.columns_unused == {"question": 1, "answer": 1}
    with pytest.raises(ValueError, match=r"no data format 'promt_completion'\. Did you mean"):
        read([row], format="promt_completion")


def test_a_function_of_your_own_is_a_format(read, tmp_path, monkeypatch):
    (tmp_path / "my_formats.py").write_text(
        "def essays(record):\n"
        "    title, _, body = record['essay'].partition('\\n')\n"
        "    return {'prompt': f'Write on {title}.', 'response': body}\n"
        "def wrong(record):\n"
        "    return {'promt': 'x'}\n"
        "def broken(record):\n"
        "    return record['nothing']\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_formats", raising=False)
    rows = [{"essay": "Saws\nThey cut."}, {"essay": 5}]
    examples, report = read(rows, format="my_formats.essays")
    assert only(examples).messages == [user("Write on Saws."), assistant("They cut.")]
    assert "AttributeError" in reasons(report)[0][1]
    _, report = read(rows[:1], format="my_formats.wrong")
    assert (
        "returned 'promt', which is not a part of a row. Did you mean 'prompt'?"
        in reasons(report)[0][1]
    )
    _, report = read(rows[:1], format="my_formats.broken")
    assert "KeyError" in reasons(report)[0][1]


# ------------------------------------------------------------------------------------- real files


@pytest.mark.parametrize(
    ("name", "use", "format_name", "kept", "of"),
    [
        ("llamafactory/alpaca_en_demo.json", "demonstrations", "alpaca", 999, 999),
        ("llamafactory/alpaca_zh_demo.json", "demonstrations", "alpaca", 1000, 1000),
        ("llamafactory/glaive_toolcall_en_demo.json", "demonstrations", "sharegpt", 300, 300),
        ("llamafactory/mllm_demo.json", "demonstrations", "messages", 0, 6),
        ("llamafactory/dpo_en_demo.json", "preferences", "preference", 300, 300),
        ("llamafactory/dpo_zh_demo.json", "preferences", "preference", 300, 300),
        ("llamafactory/kto_en_demo.json", "unpaired", "messages", 300, 300),
        ("hh-rlhf/test.jsonl.gz", "preferences", "preference", 2307, 2312),
        ("gsm8k/test.jsonl", "prompts", "question_answer", 1319, 1319),
        ("mtbench/question.jsonl", "prompts", "mt_bench", 80, 80),
        ("mtbench/dummy_conversation.json", "demonstrations", "sharegpt", 500, 500),
        ("oasst/en_100_tree.jsonl", "demonstrations", "oasst_tree", 100, 100),
        ("oasst/en_100_tree.jsonl", "preferences", "oasst_tree", 99, 100),
        ("pandalm/testset-v1.json", "pairs", "pair", 999, 999),
    ],
)
def test_real_files_are_read(real_file, name, use, format_name, kept, of):
    from plumbline.data.reader import ExampleReader
    from plumbline.data.uses import USES

    reader = ExampleReader(real_file(name), USES[use])
    examples = [row.example for row in reader]
    report = reader.report
    assert (report.format, report.kept, report.rows) == (format_name, kept, of)
    assert report.kept + len(report.dropped.rows) == report.rows
    if use == "demonstrations" and kept:
        assert not any(problem_with(e.messages) for e in examples if e.messages[-1]["content"])


def test_real_tool_calls_are_calls(real_file):
    from plumbline.data.reader import ExampleReader
    from plumbline.data.uses import USES

    reader = ExampleReader(
        real_file("llamafactory/glaive_toolcall_en_demo.json"), USES["demonstrations"]
    )
    examples = [row.example for row in reader]
    calling = [e for e in examples if any("tool_calls" in m for m in e.messages)]
    assert len(calling) > 100
    assert all(e.tools for e in calling)
    assert any(m["role"] == "tool" for e in calling for m in e.messages)
