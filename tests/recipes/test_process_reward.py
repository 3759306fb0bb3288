"""Process reward from the command line: labelled steps, training, and the result as a reward."""

from __future__ import annotations

import json
import shutil

import pytest

from plumbline.commands.recipe_book import execute, find
from plumbline.commands.reward.audit import audit
from plumbline.data.records import read_dataset, user
from plumbline.errors import ArtifactError, ConfigError
from plumbline.runs.calls import resolve
from plumbline.runs.progress import Reporter
from recipes._models import find_model_folder
from recipes._scorers import named_scorer
from recipes.label_steps import LabelStepsConfig, checker_of
from reward.load_scorer import reward_scorer
from reward.process.data import split_of
from reward.process.scorer import ProcessScorer

pytestmark = pytest.mark.slow


def run_recipe(name, settings, home, run):
    return execute(find(name), None, settings, home, Reporter(quiet=True), run)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(base_folder, home, tmp_path_factory):
    """A model of steps from a file, where a step is right unless it says so."""
    rows = [
        {
            "prompt": f"What is {n} and {n}?",
            "completions": [f"{n} twice.", "This is a mistake." if n % 2 else f"It is {2 * n}."],
            "labels": [True, n % 2 == 0],
        }
        for n in range(40)
    ]
    file = tmp_path_factory.mktemp("steps") / "steps.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [
        f"model={base_folder}", f"data={file}", "process.tuning.method=full",
        "process.training.learning_rate=3e-3", "process.training.epochs=3",
        "process.max_length=200",
    ]  # fmt: skip
    return run_recipe("train_process_reward", settings, home, "process")


def test_a_file_of_steps_trains_a_reward(trained, home, tmp_path):
    model = trained.stages["process_reward"]
    assert model.metrics["step_accuracy"] > model.metrics["majority_accuracy"]
    prompts, texts = [[user("What is 4 and 4?")]] * 2, ["4 twice.\nIt is 8.", "4 twice.\nNo."]
    expected = ProcessScorer(model).score(prompts, texts)

    def find_folder(name):
        return find_model_folder(home, name)

    # By its run, as a folder of another place, and as a term that combines otherwise.
    assert resolve(named_scorer("process:process_reward", find_folder)).score(
        prompts, texts
    ) == pytest.approx(expected)
    shutil.copytree(model.path, tmp_path / "copy")
    assert reward_scorer(tmp_path / "copy").score(prompts, texts) == pytest.approx(expected)
    terms = tmp_path / "reward.yaml"
    terms.write_text("terms: [{kind: process, model: 'process:process_reward', combine: last}]\n")
    assert resolve(named_scorer(str(terms), find_folder)).score(prompts, texts) == pytest.approx(
        ProcessScorer(model, "last").score(prompts, texts)
    )


def test_a_process_reward_model_is_audited(trained, home, tmp_path):
    """By its name: the product of its steps, on pairs of which one side has a mistake."""
    file = tmp_path / "pairs.jsonl"
    rows = [
        {
            "prompt": f"What is {n} and {n}?",
            "chosen": f"{n} twice.\nIt is {2 * n}.",
            "rejected": f"{n} twice.\nThis is a mistake.",
        }
        for n in range(12)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["adversarial=false"]
    audit("process:process_reward", [str(file)], overrides=settings, out=tmp_path, home=home)
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert figures["measured"]["pairs"] == 12
    scorer = ProcessScorer(trained.stages["process_reward"])
    prompts = [[user(row["prompt"])] for row in rows]
    chosen, rejected = (
        scorer.score(prompts, [r[side] for r in rows]) for side in ("chosen", "rejected")
    )
    right = sum(a > b for a, b in zip(chosen, rejected, strict=True)) / 12
    assert figures["measured"]["accuracy"]["value"] == right > 0.9
    assert "process:process_reward" in (tmp_path / "audit.html").read_text()


def test_roll_outs_label_steps_that_it_learns_from(base_folder, home, tmp_path):
    questions, checker = tmp_path / "questions.jsonl", tmp_path / "checker.yaml"
    rows = [{"prompt": f"Question {n}?"} for n in range(12)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    checker.write_text("terms: [{kind: matches, expression: a}]\n")
    settings = [
        f"model={base_folder}", f"data={questions}", f"checker={checker}", "labels.responses=2",
        "labels.rollouts=2", "labels.sampling.max_new_tokens=96", "labels.held_out_share=0.3",
        "labels.split=sentences",
    ]  # fmt: skip
    labelled = run_recipe("label_steps", settings, home, "labelled").stages["steps"]
    assert split_of(labelled) == "sentences"
    rows = [row for split in ("train", "test") for row in read_dataset(labelled.path, split)]
    # The label of the last step is the response's own result: whether an a is in it.
    for row in rows:
        response = "".join(row["completions"])
        assert row["labels"][-1] == float("a" in response)
        assert set(row["labels"]) <= {0.0, 0.5, 1.0}
    settings = [f"model={base_folder}", "data=labelled:steps", "process.training.max_steps=2"]
    trained = run_recipe("train_process_reward", settings, home, "from-labels")
    model = trained.stages["process_reward"]
    assert json.loads((model.path / "process.json").read_text())["split"] == "sentences"
    # Labels from roll-outs are hard: one right continuation makes a step right.
    rows = read_dataset(labelled.path, "test")
    right = [label > 0 for row in rows for label in row["labels"]]
    most = max(sum(right), len(right) - sum(right)) / len(right)
    assert model.metrics["majority_accuracy"] == most


def test_known_answers_in_the_data_are_the_checker(tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"prompt": "2 and 2?", "references": ["4"]}) + "\n")
    config = LabelStepsConfig(model="any", data=str(questions), compare="numeric")
    checker = resolve(checker_of(None, config))
    assert checker.score([[user("2 and 2?")]] * 2, ["It is 4.0", "It is 5"]) == [1, 0]


def test_what_cannot_be_checked_or_learnt_from_is_refused(base_folder, trained, home):
    with pytest.raises(ConfigError, match="Name a checker"):
        run_recipe("label_steps", [f"model={base_folder}", "data=process:steps"], home, "unchecked")
    with pytest.raises(ArtifactError, match="Give steps"):
        run_recipe(
            "train_process_reward",
            [f"model={base_folder}", "data=process:process_reward"],
            home,
            "other",
        )
