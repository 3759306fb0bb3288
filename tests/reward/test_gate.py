"""A gate over aspects: it finds weights that depend on the prompt, and comes back bit for bit."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForSequenceClassification

from plumbline.data.records import assistant, user, write_dataset
from plumbline.errors import DataError
from plumbline.lm.load import trainable_causal_lm
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from reward.config import RewardConfig
from reward.content import content_of
from reward.gate import GATE, Gate, GatePairs, fit_gate
from reward.scorer import RewardModelScorer
from reward.train import train_reward_model


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def planted(count=400, seed=0):
    """Pairs where the sign of a prompt's first number says which aspect decides."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(count, 8, generator=generator)
    difference = torch.randn(count, 2, generator=generator)
    decides = (states[:, 0] > 0).long()
    better = difference.gather(1, decides[:, None]) > 0
    difference = torch.where(better, difference, -difference)
    return GatePairs(states, difference, torch.zeros(count, 2)), decides


def test_it_starts_as_the_stated_weights():
    states = torch.randn(5, 8)
    gate = Gate.stated(states, [2.0, -0.5, 1.0], hidden=4)
    expected = torch.tensor([2.0, -0.5, 1.0]).expand(5, 3)
    torch.testing.assert_close(gate(states), expected)
    torch.testing.assert_close(gate(torch.randn(5, 8)), expected)  # for any prompt


def test_it_finds_which_aspect_decides():
    pairs, _ = planted()
    gate = fit_gate(pairs, [1.0, 1.0], hidden=16, seed=0)
    fresh, decides = planted(seed=1)
    with torch.no_grad():
        weights = gate(fresh.states)
        right = ((weights * fresh.chosen).sum(1) > 0).float().mean()
    stated = (fresh.chosen.sum(1) > 0).float().mean()
    assert stated < 0.8  # with equal weights the other aspect decides as often
    assert right > 0.9
    assert (weights.argmax(1) == decides).float().mean() > 0.8


def test_where_the_prompt_says_nothing_it_stays_near_the_stated_weights():
    generator = torch.Generator().manual_seed(2)
    difference = torch.randn(200, 2, generator=generator)
    difference[difference.sum(1) < 0] *= -1  # both aspects count the same
    pairs = GatePairs(torch.randn(200, 8, generator=generator), difference, torch.zeros(200, 2))
    gate = fit_gate(pairs, [1.0, 1.0], hidden=16, seed=0)
    with torch.no_grad():
        shares = gate(torch.randn(100, 8, generator=generator))
        shares = shares / shares.sum(1, keepdim=True)
    assert (shares - 0.5).abs().mean() < 0.15


def test_too_few_pairs_are_refused():
    pairs, _ = planted(count=9)
    with pytest.raises(DataError, match=r"9 pairs.*gate\.held_out_share"):
        fit_gate(pairs, [1.0, 1.0], hidden=4, seed=0)


def row(n):
    """A question on price is answered well by a number, any other by thanks."""
    price, number, polite = n % 2 == 0, n // 2 % 2 == 0, n // 4 % 2 == 0
    first = ("It is $7. " if number else "No idea. ") + ("Thank you!" if polite else "Bye.")
    second = ("No idea. " if number else "It is $7. ") + ("Bye." if polite else "Thank you!")
    better = first if (number if price else polite) else second
    return {
        "pair_id": f"p-{n}",
        "prompt": [user(f"How much is saw {n}?" if price else f"Hello, I am {n}.")],
        "chosen": [assistant(better)],
        "rejected": [assistant(second if better is first else first)],
        "number": float("$" in better),
        "polite": float("Thank" in better),
    }


@pytest.fixture(scope="module")
def trained(base_folder, tmp_path_factory):
    return train(tmp_path_factory.mktemp("gated"), base_folder)


def train(place, base_folder):
    rows = [row(n) for n in range(96)]
    splits = {"train": rows[:80], "test": rows[80:]}
    write_dataset(place / "data", splits, kind="preference", title="P", description="")
    stage = Stage(place / "stage", Reporter(quiet=True))
    metrics = train_reward_model(
        stage,
        config=RewardConfig(
            tuning=TuningConfig(method="lora", rank=4),
            aspects={"number": {"labels": "number"}, "polite": {"labels": "polite"}},
            gate={"held_out_share": 0.4},
            training=TrainingConfig(learning_rate=5e-3, epochs=3, batch_size=8),
        ),
        policy=Folder(base_folder),
        preferences=Folder(place / "data"),
        seed=0,
    )
    return stage.folder, metrics


TEXTS = ["It is $7. Bye.", "No idea. Thank you!", "", "It is $7. Thank you!"]
QUESTIONS = [[user("How much is saw 3?")], [user("Hello.")], [user("Hello.")], [user("$?")]]


def test_the_reward_is_the_heads_outputs_by_the_prompt_s_weights(trained):
    folder, metrics = trained
    assert metrics["pairs"] + metrics["gate_pairs"] == 80
    assert 0 <= metrics["stated_weights_accuracy"] <= 1
    scorer = RewardModelScorer(folder)
    outputs = scorer.aspect_scores(QUESTIONS, TEXTS)
    weights = scorer.aspect_weights(scorer.gate, QUESTIONS)
    assert weights[1].tolist() == weights[2].tolist()  # of one prompt
    expected = [
        sum(w * outputs[name][n] for w, name in zip(weights[n].tolist(), outputs, strict=True))
        for n in range(4)
    ]
    assert scorer.raw_scores(QUESTIONS, TEXTS) == pytest.approx(expected, abs=1e-5)


def test_it_comes_back_with_the_same_scores_bit_for_bit(trained):
    folder, _ = trained
    assert Gate.read(folder).state_dict().keys() == Gate(64, 2, 32).state_dict().keys()
    one, other = RewardModelScorer(folder), RewardModelScorer(folder)
    assert one.score(QUESTIONS, TEXTS) == other.score(QUESTIONS, TEXTS)


def test_a_written_gate_is_read_bit_for_bit(tmp_path):
    pairs, _ = planted()
    gate = fit_gate(pairs, [1.0, 0.5], hidden=4, seed=3)
    gate.write(tmp_path)
    assert torch.equal(Gate.read(tmp_path)(pairs.states), gate(pairs.states))


def test_on_disk_it_is_a_sequence_classifier_and_a_file_of_tensors(trained, tmp_path):
    folder, _ = trained
    before = content_of(folder)
    kept = (folder / GATE).read_bytes()
    weights = RewardModelScorer(folder)
    model = weights.model
    assert isinstance(model.get_base_model(), AutoModelForSequenceClassification._model_mapping[
        type(model.config)
    ])  # fmt: skip
    (folder / GATE).unlink()
    try:
        stated = RewardModelScorer(folder)
        outputs = stated.aspect_scores(QUESTIONS, TEXTS)
        expected = [a + b for a, b in zip(*outputs.values(), strict=True)]
        assert stated.raw_scores(QUESTIONS, TEXTS) == pytest.approx(expected, abs=1e-5)
        assert content_of(folder) != before
    finally:
        (folder / GATE).write_bytes(kept)


def test_killed_behind_the_gate_it_ends_with_the_same_figures(
    trained, base_folder, tmp_path, monkeypatch
):
    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("reward.train.calibrated", dies)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, base_folder)
    out = tmp_path / "stage" / "out"
    assert (out / GATE).exists()
    Gate.stated(torch.randn(5, 64), [-1.0, -1.0], 32).write(out)  # as different as can be
    monkeypatch.undo()
    resumed, figures = train(tmp_path, base_folder)
    folder, expected = trained
    assert figures == expected
    for name in (GATE, "calibration.json"):
        assert (resumed / name).read_bytes() == (folder / name).read_bytes()


def test_in_ppo_it_keeps_a_base_of_its_own(trained, base_folder):
    scorer = RewardModelScorer(trained[0])
    policy = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=2))
    assert scorer.mount(policy) is scorer


def test_a_gate_without_aspects_is_refused():
    with pytest.raises(ValidationError, match="aspects: two or more"):
        RewardConfig.model_validate({"gate": {"held_out_share": 0.2}})
