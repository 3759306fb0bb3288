"""T-Few's losses: worked by hand, on rows of a file, and in a training that learns from them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from pydantic import ValidationError

from plumbline.data.records import assistant, read_dataset, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import ConfigError
from plumbline.lm.context import LengthLimit
from plumbline.lm.load import load_causal_lm
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from sft.config import DemonstrationsConfig, OtherTasksConfig, SFTConfig
from sft.losses import AnswerLogprobs, length_normalized, prefers_right, unlikelihood
from sft.personal_data.config import PersonalDataConfig
from sft.personal_data.mask import Masker
from sft.sources import from_file
from sft.tokenized import tokenize
from sft.train import train_sft

TOOLS = ("saw", "axe", "drill", "rake", "spade")


def answers() -> AnswerLogprobs:
    """Three rows: with two wrong answers, with none, with one. 9s stand where no token is."""
    log = math.log
    return AnswerLogprobs(
        right=torch.tensor([[log(0.5), log(0.125)], [log(0.7), 9.0], [log(0.1), 9.0]]),
        right_mask=torch.tensor([[1, 1], [1, 0], [1, 0]]).bool(),
        wrong=torch.tensor(
            [[log(0.5), log(0.5), log(0.5)], [log(0.2), 0.0, 0.0], [log(0.9), log(0.4), 0.0]]
        ),
        wrong_mask=torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool(),
        row=torch.tensor([0, 0, 2]),
    )


def test_the_length_normalized_loss_is_worked_by_hand():
    """Means of a token are geometric means of probabilities: 0.25 against 0.5 and 0.2, say."""
    first = -math.log(0.25 / (0.25 + 0.5 + 0.2))
    third = -math.log(0.1 / (0.1 + math.sqrt(0.9 * 0.4)))
    assert length_normalized(answers()).tolist() == pytest.approx([first, 0.0, third], abs=1e-6)


def test_the_unlikelihood_loss_is_worked_by_hand():
    first = -(3 * math.log(0.5) + math.log(0.8)) / 4  # over all tokens of the row's wrong answers
    third = -(math.log(0.1) + math.log(0.6)) / 2
    assert unlikelihood(answers()).tolist() == pytest.approx([first, 0.0, third], abs=2e-5)


def test_the_right_answer_is_preferred_by_its_mean():
    assert prefers_right(answers()).tolist() == [False, True, False]


def test_losses_stay_numbers_where_a_wrong_answer_is_certain():
    certain = answers()._replace(
        right=torch.full((3, 2), -1e4), wrong=torch.zeros(3, 3), row=torch.tensor([0, 1, 2])
    )
    certain.wrong.requires_grad_()
    loss = unlikelihood(certain).sum() + length_normalized(certain).sum()
    loss.backward()
    assert loss.isfinite()
    assert certain.wrong.grad.isfinite().all()


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        ({"question": "2 + 2?", "options": ["3", "4", "5"], "correct": "B"}, ["A) 3", "C) 5"]),
        ({"question": "2 + 2?", "options": ["3", "4"], "answer": "B", "rationale": "Two."}, None),
        ({"question": "Red?", "answer": "Yes", "incorrect_answers": ["No", "No"]}, ["No"]),
        (
            {"messages": [user("Red?"), assistant("Yes")], "wrong_answers": ["No", "Blue"]},
            ["No", "Blue"],
        ),
    ],
)
def test_files_have_wrong_answers(tmp_path, record, wrong):
    """An option is no wrong answer to a question whose right one is worked out."""
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(record) + "\n")
    (row,) = from_file(file, DemonstrationsConfig())
    assert (json.loads(row["wrong_answers"]) if "wrong_answers" in row else None) == wrong


def test_personal_data_is_masked_in_wrong_answers_too():
    masker = Masker.of(PersonalDataConfig())
    row = {"messages": [user("Mail?"), assistant("a@b.com")], "wrong_answers": '["c@d.com", "no"]'}
    masked, counts = masker.mask_row(row)
    assert counts == {"email": 2}
    assert json.loads(masked["wrong_answers"]) == ["[EMAIL_2]", "no"]


@pytest.mark.parametrize(
    ("messages", "wrong", "reason"),
    [
        ([user("A?"), assistant("B")], ["C", "B"], "its right answer among the wrong ones"),
        ([user("A?"), assistant("B"), user("Why?")], ["C"], "not a response that is learnt"),
        ([user("A?"), assistant("B")], ["long " * 99], "longer"),
    ],
)
def test_rows_whose_answers_cannot_be_compared_are_left_out(tokenizer, messages, wrong, reason):
    good = {"messages": [user("A?"), assistant("B")], "origin": "x", "row": 1}
    bad = good | {"messages": messages, "wrong_answers": wrong, "row": 2}
    dropped = Dropped()
    kept = tokenize(
        [good, bad], tokenizer, LengthLimit(64, "is longer"), dropped, wrong_answers=True
    )
    assert len(kept) == 1
    (said,) = dropped.reasons()
    assert reason in said


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    rows = []
    for number in range(20):
        right = TOOLS[number % 5]
        talk = [user("Hello?"), assistant("Yes?"), user(f"Which tool is {number}?")]
        row = {"messages": [*talk, assistant(f"The {right}.")], "origin": "x", "row": number}
        wrong = [f"The old {tool}." for tool in TOOLS if tool != right]
        rows.append(row | {"wrong_answers": json.dumps(wrong) if number % 4 else None})
    folder = tmp_path_factory.mktemp("questions")
    splits = {"train": rows[:16], "test": rows[16:]}
    write_dataset(folder, splits, kind="messages", title="Q", description="")
    return Folder(folder)


def train(
    folder,
    base_folder,
    data,
    losses=("length_normalized", "unlikelihood"),
    method="ia3",
    **training,
):
    settings = {"learning_rate": 5e-3, "epochs": 6, "batch_size": 8, "log_every": 1}
    stage = Stage(folder, Reporter(quiet=True))
    figures = train_sft(
        stage,
        config=SFTConfig(
            tuning=TuningConfig(method=method),
            training=TrainingConfig(**settings | training),
            wrong_answer_losses=losses,
        ),
        base=Folder(base_folder),
        demonstrations=data,
        seed=0,
    )
    lines = read_metrics(stage.folder / "metrics.jsonl")
    return figures, [line["loss"] for line in lines if "loss" in line]


def plain_loss(base_folder, tokenizer, rows) -> float:
    """The three losses of rows, one answer at a time, from logits and the definitions."""
    model = load_causal_lm(base_folder).eval()

    def logprobs(messages, last_turn_only):
        (row,) = tokenize(
            [{"messages": messages}], tokenizer, LengthLimit(999, ""), Dropped(),
            last_turn_only=last_turn_only,
        )  # fmt: skip
        with torch.no_grad():
            each = torch.log_softmax(model(torch.tensor([row["input_ids"]])).logits[0], -1)
        learnt = [n for n, label in enumerate(row["labels"]) if label != -100]
        return [float(each[n - 1, row["labels"][n]]) for n in learnt]

    tokens, others = [], []
    for row in rows:
        talk = row["messages"]
        tokens += logprobs(talk, False)
        right = logprobs(talk, True)
        texts = json.loads(row["wrong_answers"] or "[]")
        wrong = [logprobs([*talk[:-1], assistant(text)], True) for text in texts]
        means = [math.exp(sum(x) / len(x)) for x in (right, *wrong)]
        unlikely = [-math.log(1 - math.exp(x)) for answer in wrong for x in answer]
        others.append(-math.log(means[0] / sum(means)) + sum(unlikely) / max(1, len(unlikely)))
    return -sum(tokens) / len(tokens) + sum(others) / len(others)


def test_a_training_has_the_losses_of_the_definitions_and_learns(
    base_folder, tokenizer, questions, tmp_path
):
    """Batches of 8 in two passes make the first loss of 16 rows, which have one turn or two."""
    (start,) = train(
        tmp_path / "start", base_folder, questions, epochs=1, batch_size=8,
        gradient_accumulation=2,
    )[1]  # fmt: skip
    rows = read_dataset(questions.path, "train")
    assert start == pytest.approx(plain_loss(base_folder, tokenizer, rows), abs=2e-3)
    figures, losses = train(tmp_path / "learnt", base_folder, questions, method="full")
    assert losses[-1] < losses[0] - 0.5
    assert figures["held_out_answer_accuracy"] == 1.0


def test_without_wrong_answers_the_losses_are_refused(base_folder, questions, tmp_path):
    rows = [
        {name: value for name, value in row.items() if name != "wrong_answers"}
        for row in read_dataset(questions.path, "train")
    ]
    write_dataset(
        tmp_path / "bare", {"train": rows[:12], "test": rows[12:]}, kind="messages", title="Q",
        description="",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="no demonstration has wrong answers"):
        train(tmp_path / "run", base_folder, Folder(tmp_path / "bare"))


def test_settings_that_take_answers_apart_are_refused():
    for more in ({"packing": True}, {"other_tasks": OtherTasksConfig(gradients="pcgrad")}):
        with pytest.raises(ValidationError, match="Leave one of them out"):
            SFTConfig(wrong_answer_losses=("unlikelihood",), **more)
