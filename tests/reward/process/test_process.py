"""Process reward: steps and their ends, labels from files and roll-outs, training and scoring."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoModelForTokenClassification

from plumbline.data.formats import FORMATS, format_of
from plumbline.data.records import read_dataset, user, write_dataset
from plumbline.errors import ConfigError, DataError, ModelError
from plumbline.lm.generation import Generation
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from reward.process import rollouts
from reward.process.config import ProcessConfig, RolloutLabelsConfig, StepFileConfig
from reward.process.data import are_from_rollouts, hard_labels, import_steps, labeled_rows
from reward.process.scorer import ProcessScorer
from reward.process.steps import STEP_COMBINATIONS, lines, sentences, step_ends
from reward.process.train import train_process_reward
from reward.process.trainer import step_losses


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


# --- Steps. ---------------------------------------------------------------------------------------


def test_texts_are_cut_into_lines_and_sentences():
    assert lines("a = 1\nb = 2\n\n c = 3") == ["a = 1\n", "b = 2\n\n ", "c = 3"]
    text = "8 saws cost 8 x 7.5 = 60. Delivered: 60 + 5 = 65! Answer: $65."
    assert sentences(text) == [
        "8 saws cost 8 x 7.5 = 60. ", "Delivered: 60 + 5 = 65! ", "Answer: $65.",
    ]  # fmt: skip
    for split in (lines, sentences):
        assert split("") == split(" \n ") == []
        assert "".join(split(text)) == text


def test_rewards_of_steps_are_combined_by_hand():
    steps = [0.9, 0.5, 0.8]
    ways = {name: way.function for name, way in STEP_COMBINATIONS.items()}
    assert ways["product"](steps) == pytest.approx(math.log(0.36))
    assert ways["minimum"](steps) == 0.5
    assert ways["last"](steps) == 0.8
    assert math.isfinite(ways["product"]([0.0]))


@pytest.mark.parametrize("text", ["Cost 8 x 7 = 56. So $61.", "Fünf, über. Ja!  Na so was. "])
def test_a_step_ends_with_the_token_that_completes_it(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    steps = sentences(text)
    ends = step_ends(tokenizer, [*ids, tokenizer.eos_token_id], steps)
    until = ""
    for step, end in zip(steps, ends, strict=True):
        assert tokenizer.decode(ids[: end + 1]).rstrip() == (until + step).rstrip()
        assert len(tokenizer.decode(ids[:end])) < len((until + step).rstrip())
        until += step


def test_hard_labels_ask_for_one_right_continuation(tmp_path):
    assert hard_labels([0.0, 1 / 6, 1.0, None]) == [0.0, 1.0, 1.0, None]
    row = {"prompt": [user("2 + 3?")], "completions": ["5."], "labels": [0.25]}
    write_dataset(tmp_path, {"train": [row]}, kind="stepwise", title="S", description="")
    for hard, label in ((True, 1.0), (False, 0.25)):
        assert [r["labels"] for r in labeled_rows(Folder(tmp_path), "train", hard=hard)] == [
            [label]
        ]


def test_the_loss_of_a_step_by_hand():
    # softmax(0, ln 3) is 1/4 and 3/4.
    outputs = torch.tensor([[0.0, math.log(3)]] * 3)
    expected = [-math.log(3 / 4), -math.log(1 / 4), -(math.log(3 / 4) + math.log(1 / 4)) / 2]
    assert step_losses(outputs, torch.tensor([1.0, 0.0, 0.5])).tolist() == pytest.approx(expected)


# --- Labels from files. ---------------------------------------------------------------------------

PRM = {
    "labeler": "x",
    "question": {"problem": "What is 2 + 3 + 4?", "ground_truth_answer": "9"},
    "label": {
        "steps": [
            {
                "completions": [
                    {"text": "2 + 3 = 6.", "rating": -1, "flagged": False},
                    {"text": "2 + 3 = 5.", "rating": 1, "flagged": False},
                    {"text": "Let me think.", "rating": None},
                ],
                "human_completion": None,
                "chosen_completion": 1,
            },
            {
                "completions": [{"text": "5 + 4 = 8.", "rating": -1}],
                "human_completion": {"text": "5 + 4 = 9."},
                "chosen_completion": None,
            },
            {
                "completions": [{"text": "Answer: 9", "rating": 0}],
                "chosen_completion": 0,
            },
        ],
        "finish_reason": "solution",
    },
}


def test_a_row_of_prm800k_by_hand():
    assert format_of(PRM).name == "prm800k"
    rows = FORMATS["prm800k"].read({"prompt": PRM["question"], "label": PRM["label"]})
    assert [(row["steps"], row["step_labels"]) for row in rows] == [
        (["2 + 3 = 6."], [0.0]),
        (["2 + 3 = 5.", "5 + 4 = 8."], [None, 0.0]),
        (["2 + 3 = 5.", "5 + 4 = 9.", "Answer: 9"], [1.0, 1.0, 1.0]),
    ]


def imported(tmp_path, rows, share=0.5):
    file = tmp_path / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = Stage(tmp_path / "stage", Reporter(quiet=True))
    figures = import_steps(
        stage, config=StepFileConfig(held_out_share=share), file=SourceFile(file), data_seed=0
    )
    return stage.folder, figures


def test_files_of_labelled_steps_become_datasets(tmp_path):
    other = json.loads(json.dumps(PRM).replace("What is", "How much is"))
    bad = json.loads(json.dumps(PRM).replace('"rating": -1', '"rating": 7'))
    more = [json.loads(json.dumps(PRM).replace("2 + 3 + 4?", f"2 + 3 + 4, {n}?")) for n in range(6)]
    folder, figures = imported(tmp_path, [PRM, other, bad, *more])
    rows = [row for split in ("train", "test") for row in read_dataset(folder, split)]
    assert len(rows) == 8 * 3
    assert figures["steps"] == 8 * 5
    assert figures["right_share"] == pytest.approx(3 / 5)
    assert "the rating 7" in (folder / "dropped.jsonl").read_text()
    whole = next(row for row in rows if len(row["completions"]) == 3)
    assert "".join(whole["completions"]) == "2 + 3 = 5.\n5 + 4 = 9.\nAnswer: 9"
    # TRL's own shape.
    plain = [
        {"prompt": f"Sum {n}", "completions": ["a", "b"], "labels": [True, False]} for n in range(8)
    ]
    (tmp_path / "trl").mkdir()
    folder, figures = imported(tmp_path / "trl", plain)
    assert figures["right_share"] == 0.5


def test_a_row_without_a_prompt_is_left_out_by_its_number_and_does_not_end_the_run(tmp_path):
    rows = [
        {"prompt": f"Sum {n}", "completions": ["a", "b"], "labels": [True, False]} for n in range(8)
    ]
    rows[4]["prompt"] = ""
    folder, figures = imported(tmp_path, rows)
    assert figures["train_rows"] + figures["test_rows"] == 7
    left_out = json.loads((folder / "dropped.jsonl").read_text())
    assert (left_out["row"], left_out["reason"]) == (5, "'prompt' has an empty message 1 (user)")


def test_rows_whose_labels_are_none_are_left_out(tmp_path):
    rows = [{"prompt": "a", "completions": ["b", "c"], "labels": [True]}] * 3
    with pytest.raises(DataError, match="no list of steps with a label for each"):
        imported(tmp_path, rows)


# --- Labels from roll-outs. -----------------------------------------------------------------------


class EndsWithYes:
    name = "right"

    def score(self, prompts, responses):
        return [float(response.rstrip().endswith("Yes.")) for response in responses]


def test_a_step_is_as_good_as_the_share_of_right_continuations(
    base_folder, tokenizer, tmp_path, monkeypatch
):
    end = tokenizer.eos_token_id

    def generation(text, finished=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return Generation([*ids, *([end] if finished else [])], [], finished)

    asked = {}

    def scripted(stage, policy, prompts, seeds, config, description, *, folder=""):
        asked[description] = [tokenizer.decode(ids) for ids in prompts]
        assert len(set(seeds)) == len(seeds)
        if description == "responses":
            texts = ["One. Two. Yes.", "One. No."]
            return [generation(texts[n % 2], finished=n != 7) for n in range(len(prompts))]
        # Two continuations behind each step: the first is always right, the second after "Two.".
        return [
            generation(" Yes." if n % 2 == 0 or "Two." in asked[description][n] else " No.")
            for n in range(len(prompts))
        ]

    monkeypatch.setattr(rollouts, "sample_in_chunks", scripted)
    stage = Stage(tmp_path / "stage", Reporter(quiet=True))
    figures = rollouts.label_steps(
        stage,
        config=RolloutLabelsConfig(responses=2, rollouts=2, held_out_share=0.5),
        policy=Folder(base_folder),
        prompts=[[user(f"Question {n}")] for n in range(4)],
        checker=EndsWithYes(),
        data_seed=0,
    )
    rows = [row for s in ("train", "test") for row in read_dataset(stage.folder, s)]
    labels = {"".join(row["completions"]): row["labels"] for row in rows}
    assert labels == {"One. Two. Yes.": [0.5, 1.0, 1.0], "One. No.": [0.5, 0.0]}
    assert are_from_rollouts(Folder(stage.folder))
    assert len(rows) == 7
    assert figures["right_responses"] == pytest.approx(4 / 7)
    assert "was cut at max_new_tokens" in (stage.folder / "dropped.jsonl").read_text()
    assert all(text.endswith(("One.", "Two.")) for text in asked["roll-outs"])


# --- Training and scoring. ------------------------------------------------------------------------


def row_of(n, wrong):
    first = f"{n} x 7 = {7 * n}. " if wrong != 0 else f"{n} x 7 = banana. "
    second = "That is all." if wrong != 1 else "That is banana."
    return {
        "prompt": [user(f"How much are {n} saws?")],
        "completions": [first, second],
        "labels": [float(wrong != 0), float(wrong == -1)],
    }


@pytest.fixture(scope="module", params=["full", "lora"])
def trained(request, base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    rows = [row_of(n, n % 3 - 1) for n in range(1, 49)]
    splits = {"train": rows[:36], "test": rows[36:]}
    write_dataset(folder, splits, kind="stepwise", title="", description="")
    stage = Stage(tmp_path_factory.mktemp("process"), Reporter(quiet=True))
    training = TrainingConfig(learning_rate=5e-3, epochs=6, batch_size=8, checkpoint_every=10)
    figures = train_process_reward(
        stage,
        config=ProcessConfig(tuning=TuningConfig(method=request.param), training=training),
        policy=Folder(base_folder),
        steps=Folder(folder),
        split="sentences",
        seed=0,
    )
    return stage.folder, figures, request.param


def test_it_learns_which_steps_are_right(trained):
    folder, figures, _ = trained
    assert figures["step_accuracy"] > 0.9 > figures["majority_accuracy"]
    assert figures["held_out_steps"] == 24
    scorer = ProcessScorer(folder, "minimum")
    prompt = [user("How much are 5 saws?")]
    texts = ["5 x 7 = 35. That is all.", "5 x 7 = banana. That is all.", ""]
    good, bad, empty = scorer.score([prompt] * 3, texts)
    assert good > 0.5 > bad > empty == 0
    first, second = scorer.step_scores([prompt], ["5 x 7 = 35. That is banana."])[0]
    assert first > 0.5 > second
    assert ProcessScorer(folder, "last").score([prompt], texts[:1]) == [
        scorer.step_scores([prompt], texts[:1])[0][-1]
    ]


def test_a_score_depends_on_its_own_row_alone(trained):
    folder, _, _ = trained
    prompts = [[user(f"How much are {n} saws?")] for n in range(6)]
    texts = ["No. " * (n + 1) for n in range(6)]
    together = ProcessScorer(folder).score(prompts, texts)
    alone = ProcessScorer(folder, batch_size=1).score(prompts, texts)
    assert together == pytest.approx(alone, abs=1e-4)


def test_texts_longer_than_in_training_are_counted(trained):
    scorer = ProcessScorer(trained[0])
    scorer.score([[user("Well? " * 999)], [user("How much?")]], ["5.", "5."])
    assert scorer.shortened == 1


def test_on_disk_it_is_a_token_classifier(trained):
    folder, _, method = trained
    if method == "lora":
        pytest.skip("an adapter names its base")
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    assert model.config.id2label == {0: "wrong", 1: "right"}
    scorer = ProcessScorer(folder)
    prompt = [user("How much are 5 saws?")]
    row = scorer._encode(1, prompt, "5 x 7 = 35. That is all.")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.places]
    expected = torch.softmax(logits, dim=1)[:, 1].tolist()
    steps = scorer.step_scores([prompt], ["5 x 7 = 35. That is all."])[0]
    assert steps == pytest.approx(expected, abs=1e-5)


def test_what_is_no_process_reward_model_is_refused(base_folder, trained):
    with pytest.raises(ModelError, match="is not a process reward model"):
        ProcessScorer(base_folder)
    with pytest.raises(ConfigError, match="no way of combining the rewards of steps 'mean'"):
        ProcessScorer(trained[0], "mean")
