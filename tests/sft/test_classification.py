"""Text classifiers: data, figures, training, and what opens them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torchmetrics.functional.classification import multiclass_calibration_error
from transformers import pipeline

from evaluation.measures.moderation import ClassifierModerator
from plumbline.data.records import read_dataset
from plumbline.data.sources import Rows
from plumbline.errors import DataError
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact, read_json
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from plumbline.world.data import prompts
from plumbline.world.requests import read
from sft.classification.config import ClassifierConfig, LabeledTextsConfig
from sft.classification.metrics import (
    accuracy,
    confidences,
    decisions,
    expected_calibration_error,
    f1_by_label,
)
from sft.classification.texts import build_labeled_texts, labels_of
from sft.classification.train import train_classifier


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def texts(folder, rows, **settings):
    stage = Stage(folder, Reporter(quiet=True))
    figures = build_labeled_texts(
        stage,
        config=LabeledTextsConfig(**settings),
        source=Rows("rows", rows),
        data_seed=0,
    )
    return Folder(stage.folder), figures


def world_rows(count=360):
    """What customers of the embedded world ask, with the kind of their request."""
    return [
        {
            "text": "\n".join(turn["content"] for turn in prompt if turn["role"] == "user"),
            "label": read(prompt).kind,
        }
        for prompt in prompts(0, count, "demonstrations")
    ]


def train(folder, base_folder, data, method="full", **more):
    config = ClassifierConfig(
        tuning=TuningConfig(method=method),
        training=TrainingConfig(
            **{"learning_rate": 3e-3, "epochs": 3, "batch_size": 16, "log_every": 5,
               "checkpoint_every": 10} | more
        ),
    )  # fmt: skip
    stage = Stage(folder, Reporter(quiet=True))
    figures = train_classifier(stage, config=config, base=Folder(base_folder), texts=data, seed=0)
    return stage.folder, figures


def test_figures_are_those_of_sklearn_and_torchmetrics():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), 200)
    names = random.integers(0, 3, 200)
    truth = np.eye(3)[names]
    given = decisions(probabilities, several=False)
    chosen = given.argmax(1)
    assert f1_by_label(given, truth) == pytest.approx(f1_score(names, chosen, average=None))
    assert accuracy(given, truth) == pytest.approx((chosen == names).mean())
    error = multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(names), num_classes=3, n_bins=15
    )
    sure, right = confidences(probabilities, truth, several=False)
    assert expected_calibration_error(sure, right) == pytest.approx(float(error), abs=1e-6)
    several = random.random((100, 4))
    applies = (random.random((100, 4)) < 0.4).astype(float)
    ours = f1_by_label(decisions(several, several=True), applies)
    assert ours == pytest.approx(f1_score(applies, several >= 0.5, average=None))


def test_calibration_is_worked_by_hand():
    # Two decisions at 0.9, one right (off by 0.4); two at 0.6, both right (off by 0.4).
    assert expected_calibration_error([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1]) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no decision"):
        expected_calibration_error([], [])


def test_rows_are_read_and_what_is_no_text_with_a_label_is_counted(tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(60)]
    bad = [{"text": "text 1", "label": "a"}, {"text": " ", "label": "a"}, {"label": "a"},
           {"text": "x", "label": None}, {"text": "y", "label": ""}]  # fmt: skip
    data, figures = texts(tmp_path / "texts", rows + bad)
    assert figures["dropped_rows"] == 5 and figures["train_rows"] + figures["test_rows"] == 60
    assert labels_of(data.path) == (["a", "b"], False)
    train_rows, test_rows = (read_dataset(data.path, split) for split in ("train", "test"))
    assert {r["text"] for r in train_rows}.isdisjoint(r["text"] for r in test_rows)
    with pytest.raises(DataError, match="needs two at least"):
        texts(tmp_path / "one", [{"text": f"t {n}", "label": "a"} for n in range(9)])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_classifier_tells_the_world_s_requests_apart(base_folder, tmp_path, method):
    data, _ = texts(tmp_path / "texts", world_rows())
    folder, figures = train(tmp_path / "model", base_folder, data, method)
    assert figures["f1"] >= 0.95 and figures["accuracy"] >= 0.95
    assert figures["calibration_error"] < 0.2
    assert set(read_json(folder / "labels_held_out.json")) == {"facts", "sum", "order"}
    # Opened by others: transformers' pipeline, and our moderation measure.
    (row, *_) = read_dataset(data.path, "test")
    (found,) = pipeline("text-classification", model=str(folder))([row["text"]])
    assert found["label"] == row["labels"][0]
    moderator = ClassifierModerator(folder, categories=["facts", "sum", "order"])
    (shares,) = moderator.moderate([[]], [row["text"]])
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4)
    assert max(shares, key=shares.get) == row["labels"][0]


def test_several_labels_at_once_are_learnt(base_folder, tmp_path):
    rows = [
        {"text": f"{'apples ' * (n % 2)}{'pears ' * (n // 2 % 2)}and number {n}",
         "label": ["apples"] * (n % 2) + ["pears"] * (n // 2 % 2)}
        for n in range(240)
    ]  # fmt: skip
    data, _ = texts(tmp_path / "texts", rows)
    folder, figures = train(tmp_path / "model", base_folder, data)
    assert figures["f1"] >= 0.95
    assert read_json(folder / "config.json")["problem_type"] == "multi_label_classification"


def test_a_classifier_cleans_a_build(base_folder, tmp_path):
    """Labels and probabilities as transformers' own pipeline gives them."""
    from transformers import AutoTokenizer

    from plumbline.data.records import assistant, user
    from plumbline.errors import ConfigError, ModelError
    from plumbline.lm.load import trainable_classifier
    from sft.cleaning.step import StepContext
    from sft.cleaning.steps import STEPS, read_step

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    answers = [f"Your order {n} costs {3 * n} coins, thank you." for n in range(12)]
    answers[6:] = [f"No, we have had no lamp for {n} days" for n in range(6)]
    model = trainable_classifier(
        base_folder, TuningConfig(method="full"), ["ham", "spam"], several=False
    )
    with torch.no_grad():  # a head for which a text is like the first one, or like the last
        ends = [
            model.model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1]
            for text in (answers[0], answers[-1])
        ]
        model.score.weight.copy_(torch.stack(ends))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    reference = [
        out["label"] for out in pipeline("text-classification", str(tmp_path / "model"))(answers)
    ]
    assert {"ham", "spam"} == set(reference)

    def outcomes(**settings):
        config = read_step({"step": "classifier", "model": "run:classifier", **settings}, 1)
        context = StepContext(models={"run:classifier": tmp_path / "model"})
        rows = [
            {"messages": [user("What does it cost?"), assistant(text)], "origin": "x", "row": n}
            for n, text in enumerate(answers)
        ]
        return list(STEPS["classifier"].prepare(config, context)(rows))

    kept = outcomes()
    assert [outcome.rows[0]["label"] for outcome in kept] == reference
    assert all(outcome.rows[0]["probability"] >= 0.5 for outcome in kept)
    without = outcomes(leave_out=["spam"])
    assert [bool(outcome.rows) for outcome in without] == [label == "ham" for label in reference]
    assert {o.reason for o in without if not o.rows} == {"is labelled spam by run:classifier"}
    only = outcomes(keep=["spam"], keep_label=False)
    assert [bool(outcome.rows) for outcome in only] == [label == "spam" for label in reference]
    assert "label" not in next(o.rows[0] for o in only if o.rows)
    with pytest.raises(ConfigError, match="has the labels ham, spam"):
        outcomes(keep=["eggs"])
    with pytest.raises(ValueError, match="both name spam"):
        outcomes(keep=["spam"], leave_out=["spam"])
    config = read_step({"step": "classifier", "model": "m"}, 1)
    with pytest.raises(ModelError, match="is not a classifier"):
        STEPS["classifier"].prepare(config, StepContext(models={"m": base_folder}))
