"""Reward models: accuracy by hand, training as TRL trains, and scoring that knows no neighbours."""

from __future__ import annotations

import json

import pytest
import torch

from plumbline.data.records import assistant, user, write_dataset
from plumbline.errors import DataError, ModelError
from plumbline.lm.chat import encode_response
from plumbline.lm.load import load_sequence_scorer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.training.config import TrainingConfig
from plumbline.world.clerks import Style, answer
from plumbline.world.data import prompts
from plumbline.world.shop import Shop
from reward.calibration import Calibration
from reward.config import RewardConfig
from reward.metrics import pairwise_accuracy
from reward.scorer import RewardModelScorer
from reward.train import _uncalibrated, train_reward_model


def test_pairwise_accuracy_by_hand():
    assert pairwise_accuracy([2.0, 1.0, 0.0, 1.0], [1.0, 2.0, 0.0, 0.0]) == 0.625
    with pytest.raises(ValueError, match="no pair"):
        pairwise_accuracy([], [])


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    """Polite answers chosen over rude ones: learnable by any model within a few steps."""
    shop = Shop.from_seed(0)
    rows = [
        {
            "prompt": prompt,
            "chosen": [assistant(answer(shop, prompt, Style()))],
            "rejected": [
                assistant(answer(shop, prompt, Style(opening="", closing="Make it quick.")))
            ],
        }
        for prompt in prompts(0, 120, "preferences")
    ]
    folder = tmp_path_factory.mktemp("preferences")
    splits = {"train": rows[:90], "test": rows[90:]}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    return Folder(folder)


def config(method: str) -> RewardConfig:
    return RewardConfig(
        tuning=TuningConfig(method=method),
        training=TrainingConfig(
            learning_rate=5e-3, epochs=2, batch_size=8, log_every=2, checkpoint_every=2
        ),
    )


@pytest.fixture(scope="module", params=["full", "lora"])
def trained(request, base_folder, preferences, tmp_path_factory):
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage

    stage = Stage(tmp_path_factory.mktemp("reward"), Reporter(quiet=True))
    figures = train_reward_model(
        stage,
        config=config(request.param),
        policy=Folder(base_folder),
        preferences=preferences,
        seed=0,
    )
    return stage.folder, figures


def test_it_learns_what_was_preferred(trained):
    _, figures = trained
    assert figures["accuracy"] > 0.9
    assert figures["held_out_pairs"] == 30


def test_scores_are_calibrated_on_held_out_pairs(trained, preferences):
    from plumbline.data.records import read_dataset

    folder, _ = trained
    rows = read_dataset(preferences.path, "test")
    scorer = RewardModelScorer(folder)
    scores = [
        score
        for side in ("chosen", "rejected")
        for score in scorer.score(
            [row["prompt"] for row in rows], [row[side][-1]["content"] for row in rows]
        )
    ]
    assert torch.tensor(scores).mean().item() == pytest.approx(0, abs=1e-4)
    assert torch.tensor(scores).std().item() == pytest.approx(1, abs=1e-4)
    assert Calibration.read(folder).std > 0


def test_a_score_depends_on_its_own_row_alone(trained, prompts):
    folder, _ = trained
    answers = ["Certainly.", "No " * 20, "", "The saws cost $7. Thank you!"] * 3
    together = RewardModelScorer(folder, batch_size=64).score(prompts, answers)
    alone = RewardModelScorer(folder, batch_size=1).score(prompts, answers)
    assert together == pytest.approx(alone, abs=1e-4)


def test_a_score_is_the_model_s_own_at_the_end_token(trained, prompts):
    folder, _ = trained
    scorer = RewardModelScorer(folder)
    model = load_sequence_scorer(folder).eval()
    prompt_ids, response_ids = encode_response(scorer.tokenizer, prompts[0], "Certainly.")
    with torch.no_grad():
        plain = model(input_ids=torch.tensor([[*prompt_ids, *response_ids]])).logits.item()
    assert scorer.raw_scores([prompts[0]], ["Certainly."]) == pytest.approx([plain], abs=1e-5)
    assert response_ids[-1] == scorer.tokenizer.eos_token_id


def test_pairs_that_do_not_fit_leave_none(base_folder, preferences, stage):
    with pytest.raises(DataError, match=r"90 × is longer than max_length \(8 tokens\)"):
        train_reward_model(
            stage,
            config=config("lora").model_copy(update={"max_length": 8}),
            policy=Folder(base_folder),
            preferences=preferences,
            seed=0,
        )


# Models whose tokenizers and templates differ, and models that are no reward models.


@pytest.fixture(scope="module")
def scorers(model_of_kind, tmp_path_factory):
    """A reward model of each kind, trained on a few pairs."""
    from plumbline.data.records import user
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage

    rows = [
        {
            "prompt": [user(f"Item {n}")],
            "chosen": [assistant("\nYes." if n % 2 else "Yes.")],
            "rejected": [assistant("No.")],
        }
        for n in range(8)
    ]
    folder = tmp_path_factory.mktemp("pairs")
    write_dataset(
        folder, {"train": rows, "test": rows}, kind="preference", title="", description=""
    )
    made = {}

    def make(kind):
        if kind not in made:
            stage = Stage(tmp_path_factory.mktemp(kind), Reporter(quiet=True))
            train_reward_model(
                stage, config=config("lora"), policy=Folder(model_of_kind(kind)),
                preferences=Folder(folder), seed=0,
            )  # fmt: skip
            made[kind] = RewardModelScorer(stage.folder)
        return made[kind]

    return make


@pytest.mark.parametrize("kind", ["chatml", "base-chatml", "strict", "think", "no-end"])
def test_any_response_has_a_score_that_no_neighbour_changes(scorers, kind):
    from plumbline.data.records import user

    scorer = scorers(kind)
    answers = ["Yes.", "\nYes.", "\n", "", " Yes. <|im_end|> more", "Yes " * 30]
    prompts = [[user("Item 1")]] * len(answers)
    together = scorer.score(prompts, answers)
    alone = [scorer.score(prompts[:1], [answer])[0] for answer in answers]
    assert together == pytest.approx(alone, abs=1e-4)
    assert len({round(score, 6) for score in alone}) > 1
    # As transformers reads it from the saved files: padding is not taken for the end.
    model = load_sequence_scorer(scorer.folder).eval()
    ids = [[*p, *r] for p, r in (encode_response(scorer.tokenizer, prompts[0], a) for a in answers)]
    width = max(map(len, ids))
    padded = torch.tensor([row + [scorer.tokenizer.pad_token_id] * (width - len(row))
                           for row in ids])  # fmt: skip
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    with torch.no_grad():
        outputs = model(input_ids=padded, attention_mask=mask).logits[:, 0]
    assert scorer.raw_scores(prompts, answers) == pytest.approx(outputs.tolist(), abs=1e-4)


def test_a_prompt_that_the_template_refuses_is_named_before_anything_is_scored(scorers):
    from plumbline.data.records import user

    scorer = scorers("strict")
    refused = [user("a"), user("b")]
    assert "Roles must alternate" in scorer.problem_with(refused)
    assert scorer.problem_with([user("a")]) is None
    with pytest.raises(ModelError, match=r"prompt 2 of 2.*Roles must alternate"):
        scorer.score([[user("a")], refused], ["Yes.", "Yes."])


def test_a_language_model_is_refused_as_a_scorer(model_of_kind, prompts):
    scorer = RewardModelScorer(model_of_kind("plain"))
    with pytest.raises(ModelError, match="no trained reward head"):
        scorer.score(prompts[:1], ["Yes."])


def test_a_calibration_of_an_earlier_version_is_read(tmp_path):
    (tmp_path / "calibration.json").write_text(
        json.dumps({"mean": 0.5, "deviation": 2.0, "max_length": 64})
    )
    assert Calibration.read(tmp_path) == Calibration(0.5, 2.0, 64)
    Calibration(0.5, 2.0, 64).write(tmp_path)
    assert json.loads((tmp_path / "calibration.json").read_text())["std"] == 2.0
    assert Calibration.read(tmp_path).apply(4.5) == 2.0


def test_a_trained_model_is_audited_and_served(trained, preferences, stage):
    from reward.audit.audit import audit_reward_model, figures_in
    from reward.audit.config import AuditConfig
    from reward.content import content_of
    from reward.server.client import RemoteScorer
    from reward.server.serve import RewardServer

    folder, figures = trained
    scorer = RewardModelScorer(folder)
    settings = AuditConfig(adversarial=False)
    metrics = audit_reward_model(
        stage, config=settings, scorer=scorer, name="m", data=[preferences]
    )
    assert metrics["accuracy"] == pytest.approx(figures["accuracy"])
    assert figures_in(stage.folder)["measured"]["shortened"] == 0
    server = RewardServer(scorer, content_of(folder)).start()
    try:
        remote = RemoteScorer(server.url, content_of(folder))
        prompts = [[{"role": "user", "content": "What do saws cost?"}]] * 3
        texts = ["Certainly.", "", "No " * 20]
        assert remote.score(prompts, texts) == pytest.approx(scorer.score(prompts, texts), abs=1e-4)
    finally:
        server.close()


def test_calibration_reads_what_scoring_will_read(trained):
    """A held-out text longer than any in training: both keep the same end of it."""
    folder, _ = trained
    prompt, response = [user("Which one?")], "The red one. " * 40
    scorer = _uncalibrated(folder, 16)
    (output,) = scorer.raw_scores([prompt], [response])
    assert scorer.shortened == 1
    later = RewardModelScorer(folder)
    later.calibration = Calibration(max_length=16)
    assert later.raw_scores([prompt], [response]) == [output]
    later.calibration = Calibration()
    assert later.raw_scores([prompt], [response]) != [output]
