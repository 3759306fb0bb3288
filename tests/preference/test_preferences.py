"""Pairs and preferences: formats, dirty rows with their numbers, and pairs in random order."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from plumbline.data.records import assistant, prompt_id, read_dataset, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.context import LengthLimit
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.training.pairs import encode_pairs
from preference.pairs import make_pairs
from preference.pairs_config import PreferenceFileConfig
from preference.responses import Response
from preference.sources import import_preferences, read_preferences


def of(*texts):
    return [Response(text) for text in texts]


TALK = "\n\nHuman: Hi there\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant:"


def write(tmp_path, records):
    path = tmp_path / "pairs.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)
    return SourceFile(path)


def test_dirty_rows_are_kept_with_number_and_reason(tmp_path):
    file = write(
        tmp_path,
        [
            {"chosen": f"{TALK} Good.", "rejected": f"{TALK} Bad."},
            {"chosen": f"{TALK}", "rejected": f"{TALK} Bad."},
            {"chosen": f"{TALK} Good.", "rejected": "\n\nHuman: Else?\n\nAssistant: Bad."},
            {"chosen": f"{TALK} Same.", "rejected": f"{TALK} Same."},
            {"chosen": f"{TALK} Good.", "rejected": f"{TALK} Bad."},
            {"chosen": f"{TALK} {'x' * 999}", "rejected": f"{TALK} Bad."},
            {"text": "?"},
            {"chosen": "\n\nHuman: Hi", "rejected": "\n\nHuman: Hi"},
        ],
    )
    rows, report = read_preferences(file, PreferenceFileConfig(max_characters=500))
    assert [row["row"] for row in rows] == [1]
    reasons = {row["row"]: row["reason"] for row in report.dropped.rows}
    assert "empty message" in reasons[2]
    assert reasons[3] == "chosen and rejected answer different prompts"
    assert reasons[4] == "chosen and rejected are the same"
    assert reasons[5] == "repeats an earlier row"
    assert "max_characters (500)" in reasons[6]
    assert reasons[7] == "has the columns text, but no chosen"
    assert "does not end with the assistant's turn" in reasons[8]


def test_the_real_file_s_dirty_rows_are_all_found(real_file):
    rows, report = read_preferences(
        SourceFile(real_file("hh-rlhf/test.jsonl.gz")), PreferenceFileConfig(max_characters=10**6)
    )
    dropped = report.dropped
    assert len(rows) + len(dropped.rows) == 2312
    kinds = Counter(
        "empty" if "empty message" in reason else reason
        for reason in (row["reason"] for row in dropped.rows)
    )
    assert kinds["empty"] == 4
    assert kinds["chosen and rejected answer different prompts"] == 5
    assert all(row["prompt"][-1]["role"] == "user" for row in rows)


def test_real_multi_turn_pairs_with_system_turns(real_file):
    rows, report = read_preferences(
        SourceFile(real_file("llamafactory/dpo_en_demo.json")),
        PreferenceFileConfig(max_characters=10**6),
    )
    assert len(rows) + len(report.dropped.rows) == 300
    assert len(rows) > 290
    assert any(row["prompt"][0]["role"] == "system" for row in rows)


def test_a_prompt_is_on_one_side_of_the_split(stage, tmp_path):
    records = [
        {"prompt": f"question {n // 2}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(200)
    ]
    figures = import_preferences(
        stage, config=PreferenceFileConfig(), file=write(tmp_path, records), data_seed=0
    )
    assert figures["train_rows"] + figures["test_rows"] == 200
    train, test = (
        {prompt_id(row["prompt"]) for row in read_dataset(stage.folder, split)}
        for split in ("train", "test")
    )
    assert not train & test


@pytest.mark.parametrize("kind", ["file", "artifact"])
def test_held_out_pairs_are_the_test_split_and_their_prompts_are_not_trained_on(
    stage, tmp_path, kind
):
    def pairs(*numbers):
        return [
            {"prompt": f"question {n}", "chosen": f"a{n} {place}", "rejected": "b"}
            for place, n in enumerate(numbers)
        ]

    file = write(tmp_path, [*pairs(1, 2, 3, 4, 2), {"prompt": "?"}])
    (tmp_path / "more").mkdir()
    held_out = write(tmp_path / "more", pairs(2, 9))
    if kind == "artifact":
        test = [
            {name: [user(text)] if name == "prompt" else [assistant(text)]
             for name, text in row.items()}
            for row in pairs(2, 9)
        ]  # fmt: skip
        folder = tmp_path / "dataset"
        write_dataset(folder, {"test": test}, kind="preference", title="P", description="")
        held_out = Artifact(folder)
    metrics = import_preferences(
        stage, config=PreferenceFileConfig(), file=file, data_seed=0, held_out=held_out
    )
    assert metrics == {"train_rows": 3.0, "test_rows": 2.0, "dropped_rows": 3.0}
    prompts = {
        split: [row["prompt"][0]["content"] for row in read_dataset(stage.folder, split)]
        for split in ("train", "test")
    }
    assert prompts["train"] == ["question 1", "question 3", "question 4"]
    assert prompts["test"] == ["question 2", "question 9"]
    left_out = Dropped.read(stage.folder)
    assert left_out.reasons()["has a held-out prompt"] == 2
    assert [row["row"] for row in left_out.rows] == [2, 5, 6]


def test_a_file_of_one_pair_is_too_small(stage, tmp_path):
    file = write(tmp_path, [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match="both need some"):
        import_preferences(stage, config=PreferenceFileConfig(), file=file, data_seed=0)


def test_pairs_are_different_answers_in_random_order():
    prompt = [user("q")]
    rows = make_pairs(prompt, of("a", "b", "a", " ", "c"), at_most=9, seed=0)
    sides = [{row["a"][0]["content"], row["b"][0]["content"]} for row in rows]
    assert sorted(map(sorted, sides)) == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert len({row["pair_id"] for row in rows}) == 3
    assert make_pairs(prompt, of("a", "a"), 3, 0) == []
    first = [
        make_pairs([user(f"q{n}")], of("x", "y"), 1, 0)[0]["a"][0]["content"] for n in range(200)
    ]
    assert 70 < first.count("x") < 130


def test_pairs_that_do_not_fit_are_kept_with_their_row(tokenizer):
    rows = [
        {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")], "row": 7},
        {
            "prompt": [user("q")],
            "chosen": [assistant("a " * 200)],
            "rejected": [assistant("b")],
            "row": 8,
        },
    ]
    dropped = Dropped()
    (pair,) = encode_pairs(rows, tokenizer, LengthLimit(60, "is too long"), dropped)
    assert pair.row["row"] == 7
    assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == tokenizer.eos_token_id
    assert [row["row"] for row in dropped.rows] == [8]
    with pytest.raises(DataError, match=r"None of 2 pairs.*is too long"):
        encode_pairs(rows, tokenizer, LengthLimit(3, "is too long"), Dropped())


IMPORT = """
import json, sys
from pathlib import Path
from plumbline.data import row_writer
from plumbline.data.sources import source_at
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from preference.pairs_config import PreferenceFileConfig
from preference.sources import import_preferences

row_writer.RowWriter.__init__.__defaults__ = (2**20,)
folder, peaks = Path(sys.argv[1]), []
for number, count in enumerate((2000, 2000, 12000)):
    with (folder / "rows.jsonl").open("w") as stream:
        for n in range(count):
            sides = {"chosen": f"good {n} " * 100, "rejected": f"bad {n // 2} " * 100}
            if n % 3 == 0:
                sides["rejected"] = sides["chosen"]  # left out
            stream.write(json.dumps({"prompt": f"{n} " * 300, **sides}) + "\\n")
    stage = Stage(folder / str(number), Reporter(quiet=True))
    metrics = import_preferences(
        stage, config=PreferenceFileConfig(), file=source_at(folder / "rows.jsonl"), data_seed=0
    )
    assert metrics["train_rows"] + metrics["test_rows"] == count - metrics["dropped_rows"] > 0
    peaks.append(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
print(peaks[2] - peaks[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells the peak")
def test_an_import_s_memory_does_not_grow_with_the_rows(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # 10,000 rows more of 3.5 KB: 35 MB in memory and more, were they held there.
    assert int(done.stdout) < 12 * 1024
