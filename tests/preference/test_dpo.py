"""DPO as a stage: our ids and our losses in TRL's trainer, and a loss of the user's own."""

from __future__ import annotations

import pytest
import torch

from plumbline.config import changed
from plumbline.data.records import assistant, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.lm.context import LengthLimit
from plumbline.lm.load import load_causal_lm, trainable_causal_lm
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from plumbline.training.pairs import encode_pairs
from preference.config import DPOConfig
from preference.dpo import train_dpo
from preference.losses import LOSSES


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


ROWS = [
    {
        "prompt": [user(f"How much are {n} saws?")],
        "chosen": [assistant(f"That is ${7 * n}. Thank you!")],
        "rejected": [assistant("No idea." if n % 3 else "Ask someone else, I am busy.")],
    }
    for n in range(1, 25)
]
TRAINING = TrainingConfig(
    learning_rate=5e-3, epochs=2, batch_size=8, log_every=1, checkpoint_every=3
)


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preferences")
    splits = {"train": ROWS, "test": ROWS[:2]}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    return Folder(folder)


def no_figures(policy, reference, step, folder):
    return {}


def train(folder, base_folder, preferences, **changes):
    stage = Stage(folder, Reporter(quiet=True))
    config = DPOConfig(
        tuning=TuningConfig(method="lora", rank=4), training=TRAINING, evaluations=0, **changes
    )
    figures = train_dpo(
        stage, config=config, policy=Folder(base_folder), preferences=preferences,
        hook=no_figures, seed=0,
    )  # fmt: skip
    return stage.folder, figures


@pytest.mark.parametrize("loss", list(LOSSES))
def test_each_loss_learns_what_was_preferred(base_folder, preferences, tmp_path, loss):
    folder, figures = train(tmp_path, base_folder, preferences, loss=loss)
    assert figures["implied_reward_accuracy"] == 1
    losses = [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    load_causal_lm(folder)


def test_with_the_embedded_template_it_is_trl_s_own_training(
    base_folder, tokenizer, preferences, tmp_path
):
    """TRL tokenises the texts by itself; this template writes nothing that we would leave out."""
    import trl
    from datasets import Dataset
    from transformers import set_seed

    folder, _ = train(tmp_path / "ours", base_folder, preferences)
    set_seed(0)
    trainer = trl.DPOTrainer(
        model=trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=4)),
        args=trl.DPOConfig(
            **TRAINING.trl_arguments(tmp_path / "trl", 0),
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=32,
        ),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )
    trainer.train()
    theirs = dict(trainer.model.named_parameters())
    ours = load_causal_lm(folder)
    trained = 0
    for name, parameter in ours.named_parameters():
        if "lora_B" in name:
            torch.testing.assert_close(parameter, theirs[name], rtol=0, atol=0)
            trained += 1
    assert trained > 0


def test_the_losses_that_are_logged_are_those_of_the_pairs(base_folder, preferences, tmp_path):
    # Before the first step the policy is its reference: the margin is 0.
    folder, _ = train(tmp_path, base_folder, preferences, loss="sigmoid", label_smoothing=0.2)
    first = read_metrics(folder / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)


def test_a_loss_of_the_user_s_own_is_named_by_its_dotted_path(
    base_folder, preferences, tmp_path, worked_example
):
    """The worked example of the documentation, as it stands there."""
    config = changed(DPOConfig(), worked_example("preference-loss").settings["dpo"])
    assert config.loss == "my_losses.dpo_positive"
    assert config.identity()["loss"]["code"]
    _, figures = train(tmp_path / "run", base_folder, preferences, loss=config.loss)
    assert figures["implied_reward_accuracy"] == 1


def test_the_same_ids_for_every_trainer_and_scorer(tokenizer):
    """What DPO trains on is what the reward model reads and what a policy would be given."""
    from plumbline.lm.chat import encode_prompt, encode_response

    (pair,) = encode_pairs(ROWS[:1], tokenizer, LengthLimit(99, ""), Dropped())
    assert pair.prompt_ids == encode_prompt(tokenizer, ROWS[0]["prompt"])
    for ids, side in ((pair.chosen_ids, "chosen"), (pair.rejected_ids, "rejected")):
        text = ROWS[0][side][0]["content"]
        assert ids == encode_response(tokenizer, ROWS[0]["prompt"], text).response_ids


# Models whose tokenizers and templates differ.


def pairs_of(*texts):
    return [
        {"prompt": [user(prompt)], "chosen": [assistant(chosen)], "rejected": [assistant("No.")]}
        for prompt, chosen in texts
    ]


def test_no_token_is_trained_behind_the_end_of_the_turn(model_of_kind):
    """A ChatML template writes a line break there, which TRL would train on."""
    tokenizer = load_tokenizer(model_of_kind("chatml"))
    (pair,) = encode_pairs(pairs_of(("Hi", "Yes.")), tokenizer, LengthLimit(99, ""), Dropped())
    whole = tokenizer.apply_chat_template([user("Hi"), assistant("Yes.")], return_dict=True)[
        "input_ids"
    ]
    assert whole == [*pair.prompt_ids, *pair.chosen_ids, *tokenizer.encode("\n")]
    assert tokenizer.decode(pair.chosen_ids) == "Yes.<|im_end|>"


@pytest.mark.parametrize("kind", ["chatml", "base-chatml", "think", "no-end", "short-context"])
def test_every_kind_of_model_trains_and_what_does_not_fit_is_counted(model_of_kind, tmp_path, kind):
    rows = pairs_of(*[(f"Item {n}", "\nYes." if n % 2 else "Yes.") for n in range(8)])
    rows += pairs_of(("word " * 400, "Yes."))
    folder = tmp_path / "preferences"
    splits = {"train": rows, "test": rows[:2]}
    folder.mkdir()
    write_dataset(folder, splits, kind="preference", title="P", description="")
    stage, figures = train(tmp_path / "run", model_of_kind(kind), Folder(folder))
    assert (figures["pairs"], figures["dropped_rows"]) == (8, 1)
    (left_out,) = Dropped.read(stage).rows
    assert left_out["row"] == 9
    expected = "own context (64 tokens" if kind == "short-context" else "max_length (512 tokens)"
    assert expected in left_out["reason"]
    assert figures["implied_reward_accuracy"] is not None
