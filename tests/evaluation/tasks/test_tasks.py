"""Tasks: what is asked, in which order, and what is known about good answers."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from evaluation.tasks.benchmarks import BenchmarkConfig, digest_of, run_benchmarks
from evaluation.tasks.sources import TaskFileConfig, count_prompts, dataset_task, file_task
from evaluation.tasks.text_perplexity import TextsConfig, measure_texts, texts_of
from plumbline.data.records import assistant, is_held_out, prompt_id, user, write_dataset
from plumbline.errors import ConfigError, DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.world.data import prompts
from plumbline.world.gold import GoldUtility
from plumbline.world.tasks import world_task

ALL = TaskFileConfig()


class Folder(Artifact):
    """A folder without a manifest."""

    id = "folder"


@pytest.fixture
def task(tmp_path):
    """Return the task that a file with these rows is."""

    def make(rows, config=ALL, name="some.jsonl", data_seed=0):
        path = tmp_path / name
        if name.endswith(".parquet"):
            pd.DataFrame(rows).to_parquet(path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file_task(SourceFile(path), config, data_seed)

    return make


ONE = {"prompt": "Two?", "references": ["2", "two"]}


def with_another_question(row):
    """Return a row, and one that asks something else in the same format."""
    return [row, json.loads(json.dumps(row).replace("One?", "Two?").replace("Count.", "Two?"))]


@pytest.mark.parametrize(
    ("row", "prompt", "references"),
    [
        ({"prompt": "One?", "references": ["1", "one"]}, "One?", ("1", "one")),
        ({"prompt": [user("One?")], "completion": [assistant("1")]}, "One?", ("1",)),
        ({"prompt": "One?", "reference": 1}, "One?", ("1",)),
        ({"prompt": "One?", "reference": 0}, "One?", ("0",)),
        ({"prompt": "One?", "answer": 0.5}, "One?", ("0.5",)),
        ({"prompt": "One?"}, "One?", ()),
        ({"messages": [user("One?"), assistant("1")]}, "One?", ("1",)),
        ({"messages": [user("One?"), assistant("7")], "label": False}, "One?", ()),
        ({"conversations": [{"from": "human", "value": "One?"}]}, "One?", ()),
        ({"instruction": "Count.", "input": "x", "output": "1"}, "Count.\n\nx", ("1",)),
        ({"question": "One?", "answer": "so\n#### 1"}, "One?", ("so\n#### 1",)),
        ({"question": "One?", "reference": "1", "category": "math"}, "One?", ("1",)),
        (
            {"question": "One?", "best_answer": "1", "correct_answers": ["1"]},
            "One?",
            ("1",),
        ),
        (
            {"context": "It is 1.", "question": "One?", "answers": {"text": ["1", "it"]}},
            "It is 1.\n\nOne?",
            ("1", "it"),
        ),
        (
            {"question": "One?", "options": ["A)1", "B)2"], "correct": "A", "rationale": "x"},
            "One?\n\nA) 1\nB) 2",
            ("A", "1"),
        ),
        (
            {"question": "One?", "choices": ["1", "2"], "answer": 0, "subject": "math"},
            "One?\n\nA) 1\nB) 2",
            ("A", "1"),
        ),
        ({"question_id": 1, "turns": ["One?", "More?"], "category": "math"}, "One?", ()),
        ({"question_id": 1, "turns": ["One?", "More?"], "reference": ["1", "2"]}, "One?", ("1",)),
        (
            {"turns": [
                {"speaker": "USER", "utterance": "One?"}, {"speaker": "SYSTEM", "utterance": "1"}
            ]},
            "One?",
            ("1",),
        ),
        (
            {"chosen": [user("One?"), assistant("1")], "rejected": [user("One?"), assistant("2")]},
            "One?",
            ("1",),
        ),
        (
            {
                "chosen": "\n\nHuman: One?\n\nAssistant: 1",
                "rejected": "\n\nHuman: One?\n\nAssistant: 2",
            },
            "One?",
            ("1",),
        ),
    ],
)  # fmt: skip
def test_files_of_this_field_are_read_as_they_are(task, row, prompt, references):
    made = task(with_another_question(row))
    first, second = made.prompts
    assert first == [user(prompt)]
    assert "Two?" in second[0]["content"]
    assert [item.references for item in made.items] == [references, references]
    assert made.items[0].subset == row.get("category", row.get("subject"))


def test_what_belongs_to_a_prompt_is_asked_with_it(task):
    rows = with_another_question(
        {"system": "Be short.", "history": [["Hi", "Hello"]], "prompt": "One?"}
    )
    assert task(rows).prompts[0] == [
        {"role": "system", "content": "Be short."},
        user("Hi"),
        assistant("Hello"),
        user("One?"),
    ]


def test_parquet_with_messages_is_read_too(task):
    rows = [{"prompt": [user(f"{n}?")], "chosen": [assistant(str(n))]} for n in range(3)]
    made = task(rows, name="some.parquet")
    assert made.items[1].references == ("1",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "line 2 has the columns text, but no prompt"),
        ({"prompt": " "}, "line 2 has a prompt that has an empty message"),
        ({"prompt": [user("a"), assistant("b")]}, "line 2 .*nothing to answer"),
        ({"prompt": 3}, "line 2 'prompt' is a number"),
        ({"prompt": "a", "references": {"a": 1}}, "line 2 has an object among its references"),
        ({"prompt": "a", "tools": [{"name": "x"}]}, "line 2 holds something under 'tools'"),
    ],
)
def test_a_row_that_is_none_is_refused_with_its_place(task, row, message):
    with pytest.raises(DataError, match=message):
        task([ONE, row, {"prompt": "Three?"}])
    made = task([ONE, row, {"prompt": "Three?"}], TaskFileConfig(leave_out_bad_rows=True))
    assert len(made.items) == 2
    assert "left out 1:" in made.notes[-1]


def test_the_same_prompt_is_asked_once_with_all_its_references(task):
    made = task([ONE, {"prompt": "One?"}, {"prompt": "Two?", "references": ["2", "II"]}])
    assert [item.references for item in made.items] == [("2", "two", "II"), ()]


def test_the_split_is_the_one_that_training_makes(task):
    rows = [{"prompt": f"How much is {n}?"} for n in range(80)]
    parts = {
        split: task(rows, TaskFileConfig(split=split, held_out_share=0.3), data_seed=4)
        for split in ("held_out", "train", "all")
    }
    held_out = parts["held_out"].prompts
    assert held_out == [p for p in parts["all"].prompts if is_held_out(p, 0.3, 4)]
    assert 10 < len(held_out) < 40
    assert len(held_out) + len(parts["train"].prompts) == len(parts["all"].prompts) == 80
    few = TaskFileConfig(rows=5)
    assert task(rows, few, data_seed=1).prompts == task(rows, few, data_seed=1).prompts
    assert task(rows, few, data_seed=1).prompts != task(rows, few, data_seed=2).prompts
    with pytest.raises(DataError, match="needs two"):
        task(rows[:1])
    with pytest.raises(DataError, match="no column 'kind'"):
        task(rows, TaskFileConfig(subset="kind"))


def test_the_world_s_references_are_answers_that_nobody_could_better():
    made = world_task(0, 9)
    assert made.prompts == prompts(0, 9, "heldout")
    gold = GoldUtility(0)
    scores = gold.score(made.prompts, [item.references[0] for item in made.items])
    assert min(scores) == max(scores) == 4.5
    assert [item.subset for item in made.items[:3]] == ["facts", "sum", "order"]
    row = made.columns(made.items[0])
    assert row["prompt_id"] == prompt_id(made.prompts[0])
    assert row["references"] and row["subset"] == "facts"


def test_a_dataset_of_a_run_is_a_task(tmp_path):
    rows = [
        {"prompt": [user("a")], "chosen": [assistant(text)], "rejected": [assistant("no")]}
        for text in ("x", "y")
    ]
    write_dataset(tmp_path, {"test": rows}, kind="preference", title="P", description="")
    made = dataset_task(Folder(tmp_path), "test")
    assert [item.references for item in made.items] == [("x", "y")]


def test_real_files_are_tasks(real_file):
    gsm = file_task(SourceFile(real_file("gsm8k/test.jsonl")), TaskFileConfig(rows=20), 0)
    assert len(gsm.items) == 20 and all("####" in item.references[0] for item in gsm.items)
    bench = file_task(SourceFile(real_file("mtbench/question.jsonl")), ALL, 0)
    assert len(bench.items) == 80 and {item.subset for item in bench.items} >= {"math", "coding"}
    alpaca = file_task(SourceFile(real_file("llamafactory/alpaca_en_demo.json")), ALL, 0)
    assert len(alpaca.items) > 900


def test_texts_come_from_files(tmp_path, base_folder, stage):
    plain, rows = tmp_path / "some.txt", tmp_path / "some.jsonl"
    plain.write_text("The saws cost $7.\nThe nails, too.\n")
    rows.write_text('{"text": "The saws."}\n{"text": "The nails cost $3."}\n')
    assert texts_of(SourceFile(plain)) == [plain.read_text()]
    texts = texts_of(SourceFile(rows))
    assert texts == ["The saws.", "The nails cost $3."]
    with pytest.raises(DataError, match="row 1: there is no text under 'body'"):
        texts_of(SourceFile(rows), "body")
    figures = measure_texts(stage, policy=Folder(base_folder), texts=texts, config=TextsConfig())
    found = pd.read_parquet(stage.folder / "texts.parquet")
    assert found["bytes"].tolist() == [len(text) for text in texts]
    assert figures["word_perplexity"] > figures["token_perplexity"] > 1


LOCAL = """\
task: shop_local
dataset_path: json
dataset_kwargs:
  data_files: {test: DATA}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{label}}"
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A benchmark of our own in the format of lm-evaluation-harness, data and all."""
    pytest.importorskip("lm_eval")
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [
        {"question": f"The saws cost {n}.", "choices": [" saws", f" {n * n}"], "label": int(n > 2)}
        for n in range(10)
    ]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "shop.yaml").write_text(LOCAL.replace("DATA", str(data)))
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return folder, rows


def test_a_local_benchmark_runs_through_lm_evaluation_harness(local, base_folder, policy, stage):
    folder, rows = local
    config = BenchmarkConfig(tasks=("shop_local",), folder=str(folder))
    figures = run_benchmarks(
        stage, policy=Folder(base_folder), config=config, folder_digest=None, seed=0
    )
    right = 0
    for row in rows:
        said = []
        for choice in row["choices"]:
            whole = policy.tokenizer(row["question"] + choice)["input_ids"]
            start = len(policy.tokenizer(row["question"])["input_ids"])
            said.append(-nats_of(policy, whole[:start], whole[start:]))
        right += (said[1] > said[0]) == row["label"]
    assert figures["shop_local/acc"] == right / 10
    share = right / 10
    assert 0 < share < 1
    error = (share * (1 - share) / 9) ** 0.5
    assert figures["shop_local/acc_se"] == pytest.approx(error)
    lines = (stage.folder / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 10


def test_a_benchmark_that_nobody_knows_is_named(local, base_folder, stage, monkeypatch):
    from lm_eval import tasks

    whole = tasks.TaskManager  # all that come with it are many, and take seconds to read
    monkeypatch.setattr(
        tasks,
        "TaskManager",
        lambda include_path, **_: whole(include_path=include_path, include_defaults=False),
    )
    config = BenchmarkConfig(tasks=("shop_local", "nowhere"), folder=str(local[0]))
    with pytest.raises(ConfigError, match="no task 'nowhere', and there is none in"):
        run_benchmarks(stage, policy=Folder(base_folder), config=config, folder_digest=None, seed=0)


def nats_of(policy, before, after):
    import torch

    with torch.no_grad():
        logits = policy.model(torch.tensor([[*before, *after]])).logits[0]
    said = torch.log_softmax(logits.double(), -1)
    start = len(before)
    return -sum(said[start + n - 1, token].item() for n, token in enumerate(after))


def test_a_changed_benchmark_is_another_one(tmp_path):
    (tmp_path / "a.yaml").write_text("task: a")
    before = digest_of(str(tmp_path))
    (tmp_path / "a.yaml").write_text("task: b")
    assert digest_of(str(tmp_path)) != before
    assert digest_of(None) is None
    with pytest.raises(DataError, match="no tasks"):
        digest_of(str(tmp_path / "none"))


def test_prompts_are_counted_up_to_a_number_and_not_read_behind_it(tmp_path):
    file = tmp_path / "prompts.jsonl"
    asked = ["one", "two", "two", "three"]
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked) + "no JSON\n")
    assert count_prompts(file, TaskFileConfig(), 0, 3) == 3
    with pytest.raises(DataError, match="line 5 is not JSON"):
        count_prompts(file, TaskFileConfig(), 0, 4)
    parts = [TaskFileConfig(split=split, held_out_share=0.5) for split in ("train", "held_out")]
    assert sum(count_prompts(file, part, 0, 1) for part in parts) == 2
