"""Questions from documents: what is asked about, what is kept, and a stage that was killed."""

from __future__ import annotations

import json

import pytest

from plumbline.data.records import read_dataset
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from sft.documents import questions
from sft.documents.checks import check_form, check_gain, first_of_equals
from sft.documents.config import ChecksConfig, QuestionsConfig
from sft.documents.questions import ask_documents
from sft.documents.slices import SlicesConfig
from sft.documents.targets import can_be_asked_about, plain_words, starts_of

CHECKS = ChecksConfig()
SENTENCE = "Allocating on the heap is slower because the allocator must find a free place first."


def standing(question, sentence=SENTENCE, gain=2.0):
    return check_gain(check_form(question, sentence, CHECKS), gain, CHECKS).standing


def test_what_is_kept_doubtful_and_left_out():
    assert standing("Why is allocating on the heap slower?") == "kept"
    assert standing("Why is allocating on the heap slower?", gain=0.5) == "doubtful"
    assert standing("Why is allocating on the heap slower?", gain=0.1) == "left_out"
    assert standing("Why is allocating on the heap slower?", gain=None) == "kept"
    assert standing("What does the allocator plan for a new place?") == "doubtful"  # 2 of 4 words


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Allocating on the heap is slower", "question mark"),
        ("What is it?", "about nothing"),
        ("What does this sentence say about the heap?", "about the text"),
        ("Why is it slower on the heap?", "does not name"),
        ("Why can't the planets orbit around the sun?", "does not say"),
        ("Why is the heap slower and why is the heap slower?", "repeats itself"),
        (
            "Why is allocating on the heap slower when the allocator must find a free place first?",
            "nearly all words",
        ),
    ],
)
def test_questions_that_are_no_good_are_left_out_with_the_reason(question, reason):
    checked = check_form(question, SENTENCE, CHECKS)
    assert checked.standing == "left_out"
    assert reason in checked.reason


def test_a_why_needs_a_reason_and_a_how_a_way_in_its_sentence():
    stated = "Accessing data on the heap is generally slower than on the stack of a program."
    assert "a way" in check_form("How is data on the heap accessed?", stated, CHECKS).reason
    sentence = "Your job is to read the steps that the model suggests for solving the problem."
    assert "reason" in check_form("Why read the steps for the problem?", sentence, CHECKS).reason


def test_of_two_questions_that_are_nearly_the_same_the_first_stays():
    asked = ["What is the heap?", "How large is a stack?", "What are the heaps?"]
    assert first_of_equals(asked, 0.8) == [None, None, 0]


def test_sentences_that_lean_on_others_are_not_asked_about():
    assert can_be_asked_about(SENTENCE)
    assert can_be_asked_about("绿茶是一种不经过发酵而制成的茶叶饮品。")
    for sentence in (
        "This is slower because the allocator must find a free place first.",
        "Listing 4 shows that a pointer is stored on the stack of the program.",
        "Is allocating on the heap slower than it is on the stack of a program?",
        "Yes, it is.",
    ):
        assert not can_be_asked_about(sentence)


def test_beginnings_fit_the_sentence():
    assert starts_of(SENTENCE, 4)[0] == "Why"
    assert starts_of("If the owner goes out of scope, the value is dropped.", 2)[0] == (
        "What happens if"
    )
    assert starts_of("恒温器是使房间温度保持稳定的装置。", 1) == ["什么是"]


def test_marks_of_markdown_are_no_words():
    written = "The _heap_ is [slow][1],\n> see `new` and **[that](http://x.y)** snake_case_name."
    assert plain_words(written) == "The heap is slow, see new and that snake_case_name."


class Writer:
    """A generator that asks well about even sentences, doubtfully and badly about others."""

    calls = 0
    dies_at = None

    def __init__(self, *_):
        pass

    def questions(self, sentences, starts, seeds):
        Writer.calls += 1
        if Writer.calls == Writer.dies_at:
            raise KeyboardInterrupt
        words = [sentence.split() for sentence in sentences]
        return [f"What is the {w[1]} of {w[4]}?" for w in words]

    def gains(self, asked, answers):
        return [(2.0, 0.5, 0.0)[int(answer.split()[-1][:-1]) % 3] for answer in answers]


NAMES = [
    "apple",
    "bridge",
    "candle",
    "donkey",
    "engine",
    "forest",
    "garden",
    "hammer",
    "island",
    "jacket",
    "kettle",
    "ladder",
]
TEXT = "\n\n".join(
    f"## Part {n}\n\n"
    f"The {name}{n} is the red {name}{n + 1} of a garden which must be kept cold with {n}."
    for n, name in enumerate(NAMES * 2)
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "LocalGenerator", Writer)
    monkeypatch.setattr(questions.Policy, "load", lambda folder: None)
    monkeypatch.setattr(Writer, "calls", 0)
    monkeypatch.setattr(Writer, "dies_at", None)
    file = tmp_path / "parts.md"
    file.write_text(TEXT)

    def make(folder):
        stage = Stage(tmp_path / folder, Reporter(quiet=True))
        config = QuestionsConfig(slices=SlicesConfig(min_characters=10))
        model = Artifact.__new__(Artifact)
        object.__setattr__(model, "path", tmp_path)
        metrics = ask_documents(
            stage, config=config, documents=[SourceFile(file)], model=model, data_seed=0
        )
        return stage.folder, metrics

    return make


def test_rows_say_where_their_answer_stands(run):
    folder, metrics = run("one")
    rows = read_dataset(folder, "train")
    assert (metrics["sentences"], len(rows)) == (24, 8)
    for row in rows:
        asked, answer = (turn["content"] for turn in row["messages"])
        assert TEXT[row["answer_start"] : row["answer_end"]] == answer
        assert row["slice_start"] <= row["answer_start"] < row["answer_end"] <= row["slice_end"]
        assert row["headings"] == f"Part {answer.split()[-1][:-1]}"
        assert asked.startswith("What is the")
    doubtful = [json.loads(line) for line in (folder / "doubtful.jsonl").read_text().splitlines()]
    assert len(doubtful) == 8
    assert all(row["messages"][1]["content"] in row["slice"] for row in doubtful)
    assert {row["reason"] for row in doubtful} == {"hardly leads to its answer"}


def test_a_killed_stage_resumes_to_the_same_bytes(run, monkeypatch):
    whole, _ = run("whole")
    monkeypatch.setattr(Writer, "calls", 0)
    monkeypatch.setattr(Writer, "dies_at", 3)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    with (whole.parent.parent / "killed" / "shards" / "candidates.jsonl").open("a") as stream:
        stream.write('{"number": 16, "be')  # half a line
    monkeypatch.setattr(Writer, "dies_at", None)
    monkeypatch.setattr(Writer, "calls", 0)
    again, _ = run("killed")
    assert Writer.calls == 1
    for file in whole.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()
