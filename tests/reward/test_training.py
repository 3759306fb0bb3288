"""Training a reward model: as TRL trains, with what rows say, ending early, and resumed."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2ForSequenceClassification, Qwen3Config
from transformers import Qwen3ForSequenceClassification as Classifier

from plumbline.data.records import assistant, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError, ModelError
from plumbline.lm.branches import reads_branches
from plumbline.lm.context import LengthLimit
from plumbline.lm.load import load_sequence_scorer, trainable_sequence_scorer
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from plumbline.training.held_out import HeldOutWatch
from plumbline.training.pairs import encode_pairs
from reward.config import EarlyStoppingConfig, RewardConfig
from reward.losses import PairLabels
from reward.pairs import UNDECIDED, RewardExample, collate, count_contradictions, reward_examples
from reward.train import train_reward_model
from reward.trainer import pair_rewards, read_branches_in_forward


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


ROWS = [
    {
        "pair_id": f"p-{n}",
        "prompt": [user(f"How much are {n} saws?")],
        "chosen": [assistant(f"That is ${7 * n}. Thank you!")],
        "rejected": [assistant("No idea." if n % 3 else "Ask someone else, I am busy.")],
        "strength": float(n % 3 + 1),
        "confidence": 0.9,
        "stars": float(4 + n % 2),
        "fewer": float(1 + n % 2),
    }
    for n in range(1, 33)
]
TRAINING = TrainingConfig(
    learning_rate=5e-3, epochs=2, batch_size=8, log_every=1, checkpoint_every=3
)
LORA = TuningConfig(method="lora", rank=4)


def write(folder, rows, undecided=()):
    splits = {"train": list(rows), "test": ROWS[24:]}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    text = "".join(json.dumps(row) + "\n" for row in undecided)
    (folder / UNDECIDED).write_text(text)
    return Folder(folder)


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    return write(tmp_path_factory.mktemp("preferences"), ROWS[:24])


def train(folder, base_folder, preferences, **changes):
    stage = Stage(folder / "stage", Reporter(quiet=True))
    config = RewardConfig(**{"tuning": LORA, "training": TRAINING, "evaluations": 0} | changes)
    figures = train_reward_model(
        stage, config=config, policy=Folder(base_folder), preferences=preferences, seed=0
    )
    return stage.folder, figures


def lines_of(folder):
    return read_metrics(folder / "metrics.jsonl")


# --- As TRL. --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_is_trl_s_own_training(base_folder, preferences, tmp_path, method):
    import trl
    from datasets import Dataset
    from transformers import set_seed

    tuning = LORA if method == "lora" else TuningConfig(method="full")
    training = TRAINING.model_copy(update={"learning_rate": 1e-3})
    folder, _ = train(tmp_path / "ours", base_folder, preferences, tuning=tuning, training=training)
    tokenizer = load_tokenizer(base_folder)
    pairs = encode_pairs(ROWS[:24], tokenizer, LengthLimit(512, ""), Dropped())
    set_seed(0)
    trainer = trl.RewardTrainer(
        model=trainable_sequence_scorer(base_folder, tuning),
        args=trl.RewardConfig(
            **training.trl_arguments(tmp_path / "trl", 0), center_rewards_coefficient=0.01
        ),
        train_dataset=Dataset.from_list(
            [
                {
                    "chosen_ids": pair.prompt_ids + pair.chosen_ids,
                    "rejected_ids": pair.prompt_ids + pair.rejected_ids,
                }
                for pair in pairs
            ]
        ),
        processing_class=tokenizer,
    )
    trainer.train()
    theirs = [line for line in trainer.state.log_history if "loss" in line]
    # TRL's losses are rounded where they are logged.
    for name in ("loss", "accuracy", "margin", "mean_reward", "min_reward", "max_reward"):
        assert [line[name] for line in lines_of(folder)] == pytest.approx(
            [line[name] for line in theirs], abs=2e-4
        )
    assert lines_of(folder)[-1]["num_tokens"] == theirs[-1]["num_tokens"]
    parameters = dict(trainer.model.named_parameters())
    ours = load_sequence_scorer(folder)
    compared = 0
    for name, parameter in ours.named_parameters():
        name = name.replace(".policy.", ".default.")
        if name in parameters and parameters[name].requires_grad:
            torch.testing.assert_close(parameter, parameters[name], rtol=0, atol=2e-4)
            compared += 1
    assert compared > 10


SIZES = {
    "vocab_size": 120, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
    "max_position_embeddings": 256, "initializer_range": 0.2, "num_labels": 1,
}  # fmt: skip


def some_examples():
    generator = torch.Generator().manual_seed(1)

    def ids(length):
        return torch.randint(1, 120, (length,), generator=generator).tolist()

    lengths = [(31, 9, 4), (1, 1, 12), (17, 5, 5), (40, 20, 1)]
    return [RewardExample(ids(p), ids(c), ids(r), {}) for p, c, r in lengths]


def test_rewards_and_gradients_are_those_of_texts_behind_prompts_of_their_own():
    """Grouped queries; transformers' own pass over padded rows is the reference."""
    torch.manual_seed(0)
    model = Classifier(Qwen3Config(**SIZES))
    examples = some_examples()
    texts = [
        [*x.prompt_ids, *response] for x in examples for response in (x.chosen_ids, x.rejected_ids)
    ]
    width = max(map(len, texts))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    plain = model(input_ids=ids, attention_mask=mask).logits
    weights = torch.linspace(-1, 1, len(texts)).unsqueeze(1)
    (plain * weights).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    read_branches_in_forward(model, 0)
    assert reads_branches(model)
    ours = model(branches=collate(examples)["pairs"].branches)
    (ours * weights).sum().backward()
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    for name, parameter in model.named_parameters():
        error = (parameter.grad - expected[name]).norm() / expected[name].norm().clamp(min=1e-9)
        assert error < 1e-4, name
    assert torch.equal(pair_rewards(ours).chosen, ours[0::2, 0])


def test_a_model_that_is_not_known_reads_each_response_behind_its_own_prompt():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=2, num_labels=1,
                        pad_token_id=0)  # fmt: skip
    model = GPT2ForSequenceClassification(config).eval()
    examples = some_examples()
    expected = [
        model(input_ids=torch.tensor([[*x.prompt_ids, *response]])).logits.item()
        for x in examples
        for response in (x.chosen_ids, x.rejected_ids)
    ]
    read_branches_in_forward(model, 0)
    assert not reads_branches(model)
    branches = collate(examples)["pairs"].branches
    assert model(branches=branches)[:, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_padded_way_is_said(base_folder, preferences, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Stage, "say", lambda stage, text: said.append(text))
    dropout = TuningConfig(method="lora", rank=4, dropout=0.1)
    train(tmp_path, base_folder, preferences, tuning=dropout)
    assert any("behind its own prompt, padded" in text for text in said)


# --- What rows say. -------------------------------------------------------------------------------

CHANGES = {
    "scaled_bradley_terry": {"margins": "strength"},
    "flip_aware": {"reliability": "confidence"},
    "ordinal": {"ratings": ("stars", "fewer")},
    "regression": {"ratings": ("stars", "fewer"), "center_rewards": 0.0},
}


@pytest.mark.parametrize(
    "loss", ["scaled_bradley_terry", "flip_aware", "unbiased", "generalized", "rao_kupper",
             "davidson", "ordinal", "regression"],
)  # fmt: skip
def test_each_loss_learns_what_was_preferred(base_folder, preferences, tmp_path, loss):
    folder, figures = train(tmp_path, base_folder, preferences, loss=loss, **CHANGES.get(loss, {}))
    losses = [line["loss"] for line in lines_of(folder)]
    assert losses[-1] < losses[0]
    assert figures["accuracy"] > 0.9


def examples_of(rows, base_folder, **settings):
    pairs = encode_pairs(rows, load_tokenizer(base_folder), LengthLimit(512, ""), Dropped())
    return reward_examples(pairs, RewardConfig(**settings), "P")


def test_margins_are_scaled_and_reliability_is_a_flip_rate(base_folder):
    examples, labels = examples_of(ROWS[:2], base_folder, margins="strength", margin_scale=0.5)
    assert [x.numbers for x in examples] == [{"margin": 1.0}, {"margin": 1.5}]
    assert labels == PairLabels()
    examples, _ = examples_of(ROWS[:1], base_folder, loss="flip_aware", reliability="confidence")
    assert examples[0].numbers == {"flip_rate": pytest.approx(0.1)}
    _, labels = examples_of(ROWS[:1], base_folder, label_smoothing=0.2)
    assert labels.probability == 0.8


def test_ratings_become_levels(base_folder):
    settings = {"loss": "ordinal", "ratings": ("stars", "fewer")}
    examples, labels = examples_of(ROWS[:4], base_folder, **settings)
    # Ratings 5, 4, 5, 4 and 2, 1, 2, 1: levels 3, 2 and 1, 0, each a quarter.
    assert [x.numbers["chosen_rating"] for x in examples] == [3, 2, 3, 2]
    assert [x.numbers["rejected_rating"] for x in examples] == [1, 0, 1, 0]
    expected = [-math.log(3), 0, math.log(3)]
    assert labels.thresholds.tolist() == pytest.approx(expected, abs=1e-6)


def test_length_that_labels_prefer_is_taken_out_of_the_reward(base_folder):
    long = {"content": "Certainly, that is eight dollars, and I thank you for asking."}
    rows = [
        {**row, "chosen": [{"role": "assistant", **long}], "rejected": [assistant("Yes.")]}
        for row in ROWS
    ]
    examples, _ = examples_of(rows, base_folder, length_correction=1.0)
    # The log-odds that length explains are granted, so the reward has nothing left to learn.
    assert all(x.numbers["margin"] < -2 for x in examples)
    halves, _ = examples_of(rows, base_folder, length_correction=0.5)
    assert halves[0].numbers["margin"] == pytest.approx(examples[0].numbers["margin"] / 2)


def test_ties_are_trained_on(base_folder, tmp_path):
    tie = {"reason": "", "outcome": "tie", "prompt": [user("Is it open?")],
           "a": [assistant("Yes.")], "b": [assistant("It is.")]}  # fmt: skip
    same_prompt_as_a_test_pair = {**tie, "prompt": ROWS[24]["prompt"]}
    other = {**tie, "outcome": "both_bad"}
    preferences = write(tmp_path / "p", ROWS[:24], [tie, same_prompt_as_a_test_pair, other])
    _, figures = train(tmp_path / "with", base_folder, preferences, loss="davidson")
    assert figures["pairs"] == 25
    _, figures = train(tmp_path / "no", base_folder, preferences, loss="davidson", ties=False)
    assert figures["pairs"] == 24
    (preferences.path / UNDECIDED).unlink()
    with pytest.raises(DataError, match="keeps no undecided pairs"):
        train(tmp_path / "none", base_folder, preferences, loss="davidson")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"label_smoothing": 0.1, "soft_labels": "x"}, "it needs loss: .* soft_labels: null"),
        ({"tie_share": 0.5}, "it needs loss: rao_kupper or davidson"),
        ({"loss": "ordinal"}, "Name their columns"),
        ({"loss": "scaled_bradley_terry"}, "margins: COLUMN"),
        ({"loss": "bradley_tery"}, "Did you mean 'bradley_terry'"),
        ({"early_stopping": {"every": 5}}, "it needs patience"),
    ],
)
def test_settings_without_effect_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        RewardConfig.model_validate(settings)


def test_contradicting_pairs_are_counted_and_identical_ones_left_out(base_folder, tmp_path):
    swapped = {**ROWS[0], "chosen": ROWS[0]["rejected"], "rejected": ROWS[0]["chosen"]}
    same = {**ROWS[1], "rejected": ROWS[1]["chosen"]}
    preferences = write(tmp_path / "p", [*ROWS[:24], swapped, same])
    folder, figures = train(tmp_path, base_folder, preferences)
    assert figures["contradicting_pairs"] == 2
    assert figures["dropped_rows"] == 1
    assert "chosen and rejected are the same" in (folder / "dropped.jsonl").read_text()
    pairs = encode_pairs(ROWS, load_tokenizer(base_folder), LengthLimit(512, ""), Dropped())
    assert count_contradictions(pairs) == 0


def test_a_loss_that_is_no_number_is_refused(base_folder, preferences, tmp_path, monkeypatch):
    from reward import trainer

    monkeypatch.setattr(
        trainer, "pair_rewards", lambda outputs, weights: pair_rewards(outputs * float("nan"))
    )
    with pytest.raises(ModelError, match="loss of step 1 is not a number"):
        train(tmp_path, base_folder, preferences)


# --- Ending early, and resuming. ------------------------------------------------------------------

STOP = EarlyStoppingConfig(patience=2, every=1, held_out_share=0.3)


def test_it_ends_early_and_keeps_its_best_weights(base_folder, preferences, tmp_path, monkeypatch):
    held, look = {}, HeldOutWatch.look

    def notes(watch, step):
        head = watch.model.base_model.model.score.modules_to_save["default"]
        held[step] = head.weight.detach().clone()
        return look(watch, step)

    monkeypatch.setattr(HeldOutWatch, "look", notes)
    # At so high a learning rate the held-out loss is best early.
    training = TRAINING.model_copy(update={"learning_rate": 0.3, "epochs": 20.0})
    folder, figures = train(
        tmp_path, base_folder, preferences, training=training, early_stopping=STOP
    )
    looks = {
        line["step"]: line["held_out_loss"] for line in lines_of(folder) if "held_out_loss" in line
    }
    best = min(looks, key=looks.get)
    assert figures["best_step"] == best
    assert figures["steps"] == max(looks) == best + 2 < 40
    saved = load_file(folder / "adapter_model.safetensors")
    (head,) = [value for name, value in saved.items() if name.endswith("score.weight")]
    assert torch.equal(head, held[best])
    assert not torch.equal(head, held[best + 2])


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("stopping", [EarlyStoppingConfig(), STOP])
def test_a_resumed_training_ends_with_the_same_bytes(
    base_folder, preferences, tmp_path, monkeypatch, stopping
):
    changes = {"early_stopping": stopping}
    whole, figures = train(tmp_path / "whole", base_folder, preferences, **changes)
    from reward.trainer import RewardTrainer

    compute = RewardTrainer.compute_loss
    calls = []

    def dies(trainer, *arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return compute(trainer, *arguments, **options)

    monkeypatch.setattr(RewardTrainer, "compute_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", base_folder, preferences, **changes)
    assert (tmp_path / "cut/stage/checkpoints").exists()
    shutil.rmtree(tmp_path / "cut/stage/scratch", ignore_errors=True)
    resumed, same = train(tmp_path / "cut", base_folder, preferences, **changes)
    assert len(calls) > 5
    assert weights(resumed) == weights(whole)
    assert (resumed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert same == figures


def test_the_head_comes_back_with_the_same_scores_bit_for_bit(
    base_folder, preferences, tmp_path, monkeypatch
):
    from reward import train as module

    kept = {}
    save = module.save_model
    monkeypatch.setattr(
        module,
        "save_model",
        lambda model, *a, **k: (kept.update(model=model), save(model, *a, **k)),
    )
    folder, _ = train(tmp_path, base_folder, preferences)
    trained, loaded = kept["model"].eval(), load_sequence_scorer(folder).eval()
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(trained(input_ids=ids).logits, loaded(input_ids=ids).logits)
