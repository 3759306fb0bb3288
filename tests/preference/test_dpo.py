"""DPO as a stage: its losses, its references, exact resume, and a loss of the user's own."""

from __future__ import annotations

import shutil

import pytest
import torch

from plumbline.config import changed
from plumbline.data.records import assistant, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.adapters import role_parameters
from plumbline.lm.context import LengthLimit
from plumbline.lm.load import load_causal_lm, trainable_causal_lm
from plumbline.lm.model_folder import ADAPTER
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


LORA = TuningConfig(method="lora", rank=4)


def train(folder, base_folder, preferences, *, hook=no_figures, **changes):
    stage = Stage(folder / "stage", Reporter(quiet=True))
    config = DPOConfig(**{"tuning": LORA, "training": TRAINING, "evaluations": 0} | changes)
    figures = train_dpo(
        stage, config=config, policy=Folder(base_folder), preferences=preferences,
        hook=hook, seed=0,
    )  # fmt: skip
    return stage.folder, figures


def lines_of(folder):
    return read_metrics(folder / "metrics.jsonl")


#: Settings that a loss needs, or is published with.
CHANGES = {
    "exo_pair": {"label_smoothing": 1e-3},
    "discopop": {"discopop_tau": 1.0},  # with its own, the loss rises at first
    "simpo": {"beta": 2.0, "target_margin": 0.5},
    "alphapo": {"beta": 2.0},
    "cpo": {"mixture": {"sft": 1.0}},
}


@pytest.mark.parametrize("loss", list(LOSSES))
def test_each_loss_learns_what_was_preferred(base_folder, preferences, tmp_path, loss):
    folder, figures = train(tmp_path, base_folder, preferences, loss=loss, **CHANGES.get(loss, {}))
    losses = [line["loss"] for line in lines_of(folder)]
    assert losses[-1] < losses[0]
    if LOSSES[loss].has_reference:
        assert figures["implied_reward_accuracy"] == 1


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
            # Adam divides by a gradient's size, so that rounding shows where that is small.
            torch.testing.assert_close(parameter, theirs[name], rtol=0, atol=5e-4)
            assert parameter.abs().max() > 5e-3
            trained += 1
    assert trained > 0
    their_losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    # TRL's are rounded where they are logged.
    assert [line["loss"] for line in lines_of(folder)] == pytest.approx(their_losses, abs=2e-4)


def test_the_losses_that_are_logged_are_those_of_the_pairs(base_folder, preferences, tmp_path):
    # Before the first step the policy is its reference: the margin is 0.
    folder, _ = train(tmp_path, base_folder, preferences, loss="sigmoid", label_smoothing=0.2)
    first = lines_of(folder)[0]
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


# References.


def losses_with(tmp_path, base_folder, preferences, name, **changes):
    folder, _ = train(tmp_path / name, base_folder, preferences, **changes)
    return [line["loss"] for line in lines_of(folder)]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_reference_that_is_computed_is_the_one_that_is_cached(
    base_folder, preferences, tmp_path, method
):
    how = {"tuning": LORA if method == "lora" else TuningConfig(method="full")}
    cached, computed = (
        losses_with(tmp_path, base_folder, preferences, kind, reference={"kind": kind}, **how)
        for kind in ("cached", "computed")
    )
    assert cached == pytest.approx(computed, abs=1e-4)
    assert min(cached) < 0.69


def test_a_policy_that_starts_as_an_adapter_is_its_own_reference(
    base_folder, preferences, tmp_path
):
    first, _ = train(tmp_path / "first", base_folder, preferences)
    for kind in ("cached", "computed"):
        losses = losses_with(tmp_path, first, preferences, kind, reference={"kind": kind})
        assert losses[0] == pytest.approx(0.693147, abs=1e-5)
        assert losses[-1] < 0.69


def test_log_probabilities_of_the_reference_are_computed_once_for_all_runs(
    base_folder, preferences, tmp_path, monkeypatch
):
    from preference.reference import PolicyAndReference

    called = []
    compute = PolicyAndReference.sums
    monkeypatch.setattr(
        PolicyAndReference, "sums", lambda *given: called.append(1) or compute(*given)
    )

    def calls(**changes):
        called.clear()
        # All stages of a home have one cache; here it is beside the stage's own folder.
        shutil.rmtree(tmp_path / "stage", ignore_errors=True)
        train(tmp_path, base_folder, preferences, **changes)
        return len(called)

    assert calls() > 0
    (file,) = (tmp_path / ".cache").iterdir()
    assert calls(beta=0.5, loss="ipo") == 0
    assert calls(ld_alpha=0.5) > 0
    file.write_bytes(b"cut off")
    assert calls() > 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_steps": 2, "batch_size": 4}, 8),
        ({"max_steps": 2, "batch_size": 4, "gradient_accumulation": 2}, 16),
        ({"max_steps": 6, "batch_size": 4}, 24),
        ({"max_steps": 20, "batch_size": 4}, 24),
        ({"epochs": 0.5, "batch_size": 5}, 15),
        ({"epochs": 1, "batch_size": 7}, 24),
    ],
)
def test_the_reference_reads_only_the_pairs_that_the_training_will_read(
    base_folder, preferences, tmp_path, monkeypatch, changes, expected
):
    """A pair without its numbers would be read once more, in its step, and so be counted."""
    from preference.reference import PolicyAndReference

    read = []
    compute = PolicyAndReference.sums
    monkeypatch.setattr(
        PolicyAndReference,
        "sums",
        lambda roles, branches, tokens, ld_alpha: (
            read.append(len(tokens)) or compute(roles, branches, tokens, ld_alpha)
        ),
    )
    training = TrainingConfig(learning_rate=5e-3, log_every=1, checkpoint_every=1, **changes)
    how = {"base_folder": base_folder, "preferences": preferences, "training": training}
    cached = losses_with(tmp_path, name="cached", **how)
    assert sum(read) == expected
    computed = losses_with(tmp_path, name="computed", reference={"kind": "computed"}, **how)
    assert cached == pytest.approx(computed, abs=1e-4)


def test_a_reference_that_follows_at_once_leaves_no_margin(base_folder, preferences, tmp_path):
    """With mixing 1 after every step it is the policy, so that each batch starts at log 2."""
    follows = {"kind": "moving", "mixing": 1.0, "every": 1}
    losses = losses_with(tmp_path, base_folder, preferences, "follows", reference=follows)
    assert losses == pytest.approx([0.693147] * len(losses), abs=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_reference_that_moves_is_between_its_start_and_the_policy(base_folder, tokenizer, method):
    from preference.reference import PolicyAndReference

    tuning = LORA if method == "lora" else TuningConfig(method="full")
    roles = PolicyAndReference(base_folder, tuning, tokenizer)
    roles.start_moving()
    policy = dict(role_parameters(roles.model, ADAPTER))
    assert roles.moving_parameters.keys() == policy.keys()
    before = {name: p.detach().clone() for name, p in roles.moving_parameters.items()}
    with torch.no_grad():
        for parameter in policy.values():
            parameter.add_(1.0)
    roles.update(0.25)
    for name, parameter in roles.moving_parameters.items():
        assert not parameter.requires_grad or parameter is not policy[name]
        torch.testing.assert_close(parameter, before[name] + 0.25)


def test_bfloat16_is_computed_in_without_a_gpu(base_folder, preferences, tmp_path):
    half = TRAINING.model_copy(update={"bf16": True})
    exact = losses_with(tmp_path, base_folder, preferences, "exact")
    found = losses_with(tmp_path, base_folder, preferences, "half", training=half)
    assert found != exact
    assert found == pytest.approx(exact, abs=0.05)


# What rows say.


def with_columns(tmp_path, rows):
    folder = tmp_path / "columns"
    write_dataset(
        folder, {"train": rows, "test": rows[:2]}, kind="preference", title="P", description=""
    )
    return Folder(folder)


def test_soft_labels_margins_and_weights_are_those_of_the_rows(base_folder, tmp_path):
    """Before the first step every implied margin is 0, so that losses can be worked by hand."""
    import math

    rows = [
        row | {"soft": 0.5 + n / 100, "grade": float(n % 3), "trust": n / 10}
        for n, row in enumerate(ROWS)
    ]
    data = with_columns(tmp_path, rows)
    whole = TrainingConfig(batch_size=24, max_steps=1, log_every=1, checkpoint_every=1)

    def first_loss(name, **changes):
        return losses_with(tmp_path, base_folder, data, name, training=whole, **changes)[0]

    assert first_loss("soft", soft_labels="soft") == pytest.approx(math.log(2), abs=1e-5)
    expected = sum(math.log(1 + math.exp(0.4 * (n % 3))) for n in range(24)) / 24
    found = first_loss("margins", margins="grade", target_margin=0.4)
    assert found == pytest.approx(expected, abs=1e-5)
    expected = math.log(2) * sum(n / 10 for n in range(24)) / 24
    assert first_loss("weights", sample_weights="trust") == pytest.approx(expected, abs=1e-5)
    found = first_loss("mixture", mixture={"hinge": 0.25})  # hinge is 1 at a margin of 0
    assert found == pytest.approx(math.log(2) + 0.25, abs=1e-5)


def test_soft_labels_are_learnt_as_they_are(base_folder, tmp_path):
    """Pairs whose labels are a coin's pull nowhere: their gradient is 0 at the start."""
    data = with_columns(tmp_path, [row | {"soft": 0.5} for row in ROWS])
    folder, _ = train(tmp_path, base_folder, data, soft_labels="soft")
    assert lines_of(folder)[0]["grad_norm"] == pytest.approx(0, abs=1e-4)


def test_a_column_that_is_missing_or_no_number_is_refused(base_folder, tmp_path):
    data = with_columns(tmp_path, [row | {"soft": 1.5} for row in ROWS])
    with pytest.raises(DataError, match=r"soft_labels is 'soft'.*1\.5.*from 0 to 1"):
        train(tmp_path / "a", base_folder, data, soft_labels="soft")
    with pytest.raises(DataError, match=r"sample_weights is 'trust'.*None"):
        train(tmp_path / "b", base_folder, data, sample_weights="trust")


def test_pairs_that_teach_nothing_are_counted_by_reason(base_folder, tmp_path):
    same = {**ROWS[0], "rejected": ROWS[0]["chosen"]}
    too_long = {**ROWS[2], "chosen": [assistant("word " * 600)]}
    data = with_columns(tmp_path, [*ROWS, same, too_long])
    stage, figures = train(tmp_path, base_folder, data)
    assert (figures["pairs"], figures["dropped_rows"]) == (24, 2)
    reasons = Dropped.read(stage).reasons()
    assert reasons["chosen and rejected are the same"] == 1


# Exact resume.


class KilledError(Exception):
    pass


@pytest.mark.parametrize("reference", ["cached", "moving"])
@pytest.mark.parametrize("step", [4, 5])
def test_a_training_that_was_killed_ends_with_the_same_bytes(
    base_folder, preferences, tmp_path, reference, step
):
    how = {"evaluations": 6, "keep_checkpoints": False, "reference": {"kind": reference}}
    if reference == "moving":
        how["reference"] |= {"every": 2, "mixing": 0.5}
    killed = [False]

    def kills_once(policy, reference, at, folder):
        if at == step and not killed[0]:
            killed[0] = True
            raise KilledError
        return {}

    whole, _ = train(tmp_path / "whole", base_folder, preferences, **how)
    with pytest.raises(KilledError):
        train(tmp_path / "cut", base_folder, preferences, hook=kills_once, **how)
    cut, _ = train(tmp_path / "cut", base_folder, preferences, hook=kills_once, **how)
    for name in ("adapter_model.safetensors", "metrics.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


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


@pytest.mark.parametrize("method", ["last_layers", "rslora", "dora", "ia3", "bottleneck"])
def test_other_tuning_methods_start_at_their_reference_and_move_away(
    base_folder, preferences, tmp_path, method
):
    tuning = TuningConfig(
        method=method, **({"trained_layers": 1} if method == "last_layers" else {})
    )
    folder, _ = train(tmp_path, base_folder, preferences, tuning=tuning)
    lines = [line for line in lines_of(folder) if "loss" in line]
    assert abs(lines[0]["rewards/margins"]) < abs(lines[-1]["rewards/margins"])
    start = load_causal_lm(base_folder).eval()
    moved = load_causal_lm(folder).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert not torch.allclose(start(ids).logits, moved(ids).logits)
