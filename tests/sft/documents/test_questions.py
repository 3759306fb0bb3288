"""Questions from documents: what is asked about, what is kept, and a stage that was killed."""

from __future__ import annotations

import json

import pytest

from plumbline.data.records import read_dataset
from plumbline.lm.writer import WriterEndpointConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from sft.documents import questions
from sft.documents.checks import check_answer, check_form, check_gain, first_of_equals
from sft.documents.config import ChecksConfig, QuestionsConfig
from sft.documents.question_forms import fits_of
from sft.documents.questions import ask_documents
from sft.documents.slices import SlicesConfig
from sft.documents.targets import can_be_asked_about, plain_words
from tests.endpoint_server import EndpointServer, completion

CHECKS = ChecksConfig()
ANSWERED = ChecksConfig(round_trip=0.5)
SENTENCE = "Allocating on the heap is slower because the allocator must find a free place first."


def fit(sentence=SENTENCE, form="Why"):
    (found,) = (fit for fit in fits_of(sentence) if fit.form.start == form)
    return found


def standing(question, **parts):
    return check_form(question, fit(**parts), CHECKS).standing


@pytest.mark.parametrize(
    ("sentence", "form", "asked", "told"),
    [
        (SENTENCE, "Why", "Allocating on the heap is slower",
         "the allocator must find a free place first."),
        ("Because ice is lighter than water, it floats on the lake.", "Why", None, None),
        ("Counting sheep helps because it is dull and takes long.", "Why", "Counting sheep helps",
         "it is dull and takes long."),
        ("The bell rings twice when leaving the old station.", "What happens when", None, None),
        ("Ice is lighter than water, so lakes freeze from above.", "Why", "lakes freeze from above",
         "Ice is lighter than water"),
        ("If the owner goes out of scope, the value is dropped.", "What happens if",
         "the owner goes out of scope", "the value is dropped."),
        ("If you are lost, call the front desk at once.", "What should you do if",
         "you are lost", "call the front desk at once."),
        ("The bell rings twice when the train has left.", "What happens when",
         "the train has left", "The bell rings twice"),
        ("The bell rings twice when the train has left.", "When",
         "The bell rings twice", "when the train has left"),
        ("When the train leaves, so we hear, the old bell rings.", "What happens when",
         "the train leaves", "so we hear, the old bell rings."),
        ("A scope is the range in which a name is valid.", "What is", "A scope",
         "the range in which a name is valid."),
        ("The reason is the range in which a name is valid.", "What is", None, None),
        ("The stack stores values in the order of their arrival.", "What does", "The stack",
         "stores values in the order of their arrival."),
        ("Old maps of the city are kept in the cellar of the library.", "Where",
         "Old maps of the city are kept", "in the cellar of the library."),
        ("All guests of the house must have a valid passport.", "What must",
         "All guests of the house", "have a valid passport."),
        ("如果温度低于零度，暖气会自动打开。", "如果", "温度低于零度", "暖气会自动打开。"),
        ("We are unsure if the last train has left.", "What happens if", None, None),
    ],
)  # fmt: skip
def test_a_sentence_has_a_part_to_ask_about_and_a_part_that_answers(sentence, form, asked, told):
    found = {each.form.start: (each.topic, each.answer) for each in fits_of(sentence)}
    assert found.get(form) == (None if asked is None else (asked, told))


def test_what_is_kept_doubtful_and_left_out():
    assert standing("Why is allocating on the heap slower?") == "kept"
    assert standing("Why is allocating on the heap a slower plan?") == "doubtful"  # 3 of 4 words
    assert standing("Why is the heap?") == "doubtful"  # 1 of 3 words of the part


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Allocating on the heap is slower", "question mark"),
        ("Why is it?", "about nothing"),
        ("Why does the passage say allocating on the heap?", "about the text"),
        ("Why is it slower on the heap?", "does not name"),
        ("Why can the planets orbit around the sun?", "does not say"),
        ("Why is the heap slower and why is the heap slower?", "repeats itself"),
        ("Why is allocating on the heap not slower?", "says no"),
        ("Why must the allocator find a slower heap for allocating?", "words of its answer"),
        ("Why allocating on the heap is slower?", "not a whole question"),
        ("Why is allocating on the slower heap of the?", "not a whole question"),
        ("Why is allocating on the heap slower " + "on the heap " * 5 + "?", "longer"),
    ],
)
def test_questions_that_are_no_good_are_left_out_with_the_reason(question, reason):
    checked = check_form(question, fit(), CHECKS)
    assert checked.standing == "left_out"
    assert reason in checked.reason


def test_what_something_is_must_be_asked_of_all_of_it():
    sentence = "A Great option is anything that a good student would try."
    assert standing("What is a great option?", sentence=sentence, form="What is") == "kept"
    assert standing("What is a option?", sentence=sentence, form="What is") == "left_out"


def test_a_question_must_lead_to_its_answer_where_that_is_asked_for():
    kept = check_form("Why is allocating on the heap slower?", fit(), CHECKS)
    wants = ChecksConfig(gain=0.3)
    assert check_gain(kept, 0.3, wants).standing == "kept"
    assert check_gain(kept, 0.2, wants).standing == "doubtful"
    assert check_gain(kept, None, wants).standing == "kept"
    assert check_gain(kept, -9.0, CHECKS).standing == "kept"


def test_the_generator_must_answer_from_the_same_sentence():
    question = "Why is allocating on the heap slower?"
    kept = check_form(question, fit(), CHECKS)
    others = ["The stack is faster because values lie in order.", "Every program has a stack."]

    def answered(reply, config=ANSWERED):
        return check_answer(kept, question, reply, SENTENCE, others, config)

    assert answered("Because the allocator must find a free place.").standing == "kept"
    assert answered("Values lie in order on the stack.").standing == "doubtful"
    assert "no answer" in answered("Because it is slower.").reason
    # Two words of five are in the sentence: below the half that is asked for.
    assert answered("The allocator must ask big, old, free servers.").standing == "doubtful"
    assert answered("", CHECKS).standing == "kept"


def test_of_two_questions_that_are_nearly_the_same_the_first_stays():
    asked = ["What is the heap?", "How large is a stack?", "What are the heaps?"]
    assert first_of_equals(asked, 0.8) == [None, None, 0]


def test_sentences_that_lean_on_others_are_not_asked_about():
    assert can_be_asked_about(SENTENCE)
    assert can_be_asked_about("However, the heap is slower because the allocator must search.")
    assert can_be_asked_about("绿茶是一种不经过发酵而制成的茶叶饮品。")
    for sentence in (
        "This is slower because the allocator must find a free place first.",
        "Listing 4 shows that a pointer is stored on the stack of the program.",
        "Is allocating on the heap slower than it is on the stack of a program?",
        "However, it is slower because the allocator must find a free place first.",
        "Yes, it is.",
    ):
        assert not can_be_asked_about(sentence)


def test_marks_of_markdown_are_no_words():
    written = "The _heap_ is [slow][1],\n> see `new` and **[that](http://x.y)** snake_case_name."
    assert plain_words(written) == "The heap is slow, see new and that snake_case_name."


class Writer:
    """A generator that asks well about even sentences, doubtfully and badly about others."""

    calls = 0
    dies_at = None

    def __init__(self, *_):
        pass

    def questions(self, sentences, forms, seeds):
        Writer.calls += 1
        if Writer.calls == Writer.dies_at:
            raise KeyboardInterrupt
        return [f"Why is the {sentence.split()[1]} kept cold?" for sentence in sentences]

    def gains(self, asked, answers):
        return [(2.0, 0.2, 2.0)[int(answer.split()[-1][:-1]) % 3] for answer in answers]

    def answers(self, asked, texts):
        """The right answer to two questions of three."""
        last = [int(text.split()[-1][:-1]) for text in texts]
        return [f"It holds {n if n % 3 < 2 else 'nothing of mine'}." for n in last]


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
    f"## Part {n}\n\nThe {name}{n} is kept cold because the red {name} holds {n}."
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

    def make(folder, **generator):
        stage = Stage(tmp_path / folder, Reporter(quiet=True))
        config = QuestionsConfig(
            slices=SlicesConfig(min_characters=10), checks=ChecksConfig(gain=0.3, round_trip=0.5)
        )
        model = Artifact.__new__(Artifact)
        object.__setattr__(model, "path", tmp_path)
        metrics = ask_documents(
            stage,
            config=config,
            documents=[SourceFile(file)],
            data_seed=0,
            **(generator or {"model": model}),
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
        assert asked.startswith("Why is the")
        assert row["question_form"] == "Why"
    doubtful = [json.loads(line) for line in (folder / "doubtful.jsonl").read_text().splitlines()]
    assert len(doubtful) == 16
    assert all(row["messages"][1]["content"] in row["slice"] for row in doubtful)
    assert {row["reason"] for row in doubtful} == {
        "hardly leads to its answer", "is answered otherwise by the generator itself",
    }  # fmt: skip


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


def test_an_endpoint_writes_and_answers_and_is_asked_nothing_twice(run, tmp_path):
    def reply(payload):
        text = payload["messages"][0]["content"]
        if text.startswith("Write one question"):
            sentence = text.rsplit("Sentence: ", 1)[1].split("\n")[0]
            return completion(f"Question: Why is the {sentence.split()[1]} kept cold?")
        return completion(text.split("\n")[0])

    server = EndpointServer(reply)
    try:
        config = WriterEndpointConfig(model="m", base_url=server.url)
        folder, metrics = run("one", endpoint=config)
        asked = len(server.requests)
        again, _ = run("two", endpoint=config)
        assert len(server.requests) == asked
    finally:
        server.close()
    assert (metrics["train_rows"], metrics["doubtful_rows"]) == (24, 0)
    rows = read_dataset(folder, "train")
    assert rows[0]["messages"][0]["content"] == "Why is the apple0 kept cold?"
    assert {row["gain"] for row in rows} == {None}
    assert (folder / "train.parquet").read_bytes() == (again / "train.parquet").read_bytes()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"checks": {"gain": 0.5}}, "gives no probabilities"),
        ({"sampling": {"temperature": 0.2}}, r"endpoint\.temperature"),
    ],
)
def test_what_an_endpoint_cannot_do_is_refused(settings, said):
    from recipes.document_questions import DocumentQuestionsConfig

    given = {"documents": ["a.md"], "questions": settings}
    with pytest.raises(ValueError, match=said):
        DocumentQuestionsConfig.model_validate({**given, "endpoint": {"model": "m"}})
    assert DocumentQuestionsConfig.model_validate({**given, "model": "a/b"}).model == "a/b"
