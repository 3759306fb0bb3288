"""Preference losses: by hand, against two reference implementations, and by their properties."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plumbline.config import load
from plumbline.errors import ConfigError
from preference.config import DPOConfig
from preference.losses import LOSSES, PairLogprobs

margins = st.floats(-30, 30)
betas = st.floats(0.05, 2)
shares = st.floats(0, 0.45)


def pairs(margin, *, rejected_ratio=0.0, tokens=(1, 1)):
    """Pairs with given margins and log-ratios of the rejected responses."""
    margin = torch.as_tensor(margin, dtype=torch.float64).reshape(-1)
    zero = torch.zeros_like(margin)
    chosen_tokens, rejected_tokens = (torch.full_like(margin, n) for n in tokens)
    return PairLogprobs(
        margin + rejected_ratio, zero + rejected_ratio, zero, zero, chosen_tokens, rejected_tokens
    )


def value(name, margin, beta=1.0, label_smoothing=0.0, **more):
    losses = LOSSES[name].function(pairs(margin, **more), beta, label_smoothing)
    assert losses.shape == (1,)
    return losses.item()


# By hand: sigma(ln 3) = 3/4.
LN3 = math.log(3)


@pytest.mark.parametrize(
    ("name", "margin", "beta", "label_smoothing", "expected"),
    [
        ("sigmoid", 2 * LN3, 0.5, 0.0, -math.log(3 / 4)),
        ("sigmoid", 2 * LN3, 0.5, 0.2, -0.8 * math.log(3 / 4) - 0.2 * math.log(1 / 4)),
        ("robust", 2 * LN3, 0.5, 0.2, (-0.8 * math.log(3 / 4) + 0.2 * math.log(1 / 4)) / 0.6),
        ("hinge", 3.0, 0.2, 0.0, 0.4),
        ("hinge", 6.0, 0.2, 0.0, 0.0),
        ("ipo", 3.0, 0.25, 0.0, 1.0),  # (3 - 2)^2
    ],
)
def test_values_by_hand(name, margin, beta, label_smoothing, expected):
    assert value(name, margin, beta, label_smoothing) == pytest.approx(expected, abs=1e-12)


def test_ipo_takes_the_mean_over_the_tokens_of_each_response():
    # Log-ratios 6 over 3 tokens and -4 over 8: 2 + 0.5, less 1 / (2 * 0.5).
    assert value("ipo", 10.0, 0.5, rejected_ratio=-4.0, tokens=(3, 8)) == pytest.approx(1.5**2)


#: From `preference_loss` in trainers.py of eric-mitchell/direct-preference-optimization at
#: f8b8c0f, run in float64 on the log-probabilities below.
REFERENCE = {
    (0.1, 0.0): [0.62095704779, 0.744396660074, 0.723597113076, 0.341153874732],
    (0.5, 0.0): [0.386871006115, 0.97407698418, 0.854355244469, 0.011047744849],
    (0.5, 0.2): [0.536871006115, 0.87407698418, 0.794355244469, 0.911047744849],
    (0.1, 0.3): [0.66595704779, 0.714396660074, 0.705597113076, 0.611153874732],
}


@pytest.mark.parametrize(("beta", "label_smoothing"), list(REFERENCE))
def test_dpo_and_conservative_dpo_are_those_of_their_authors(beta, label_smoothing):
    logprobs = PairLogprobs(
        torch.tensor([-4.0, -10.5, -3.2, -7.0], dtype=torch.float64),
        torch.tensor([-6.0, -9.0, -3.1, -20.0], dtype=torch.float64),
        torch.tensor([-5.0, -10.0, -3.0, -8.0], dtype=torch.float64),
        torch.tensor([-5.5, -9.5, -3.5, -12.0], dtype=torch.float64),
        torch.ones(4),
        torch.ones(4),
    )
    losses = LOSSES["sigmoid"].function(logprobs, beta, label_smoothing)
    assert losses.tolist() == pytest.approx(REFERENCE[beta, label_smoothing], abs=1e-11)


# Against TRL: its own code on the same log-probabilities, value and gradient.


def trl_loss(loss_type, token_logprobs, inputs, beta, label_smoothing):
    """Run TRL's `_compute_loss` on log-probabilities that no model made."""
    import trl

    mask = inputs["completion_mask"][:, 1:]
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x
        ),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=label_smoothing,
        use_weighting=False,
        _tp_size=1,
        _total_train_tokens=0,
        _metrics={"train": {name: [] for name in TRL_METRICS}},
    )
    outputs = SimpleNamespace(
        log_probs=token_logprobs,
        entropy=torch.zeros_like(token_logprobs),
        mean_logits=torch.zeros_like(token_logprobs),
        is_top1=torch.zeros_like(mask, dtype=torch.bool),
    )
    return trl.DPOTrainer._compute_loss(trainer, lambda **_: outputs, dict(inputs), False)


TRL_METRICS = (
    "entropy", "num_tokens", "logits/chosen", "logits/rejected", "mean_token_accuracy",
    "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
    "logps/chosen", "logps/rejected",
)  # fmt: skip


def batch(rows, seed=0):
    """Random log-probabilities [2 B, T] of responses of different lengths, with their batch."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(2 * rows, 9, dtype=torch.long)
    for row in range(2 * rows):
        mask[row, 2 : 4 + (3 * row) % 6] = 1
    token_logprobs = -2 * torch.rand(2 * rows, 8, generator=generator, dtype=torch.float64)
    token_logprobs *= mask[:, 1:]
    reference = -8 * torch.rand(2, rows, generator=generator, dtype=torch.float64)
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": reference[0],
        "ref_rejected_logps": reference[1],
    }
    return token_logprobs, inputs


@pytest.mark.parametrize(
    ("name", "theirs", "label_smoothing", "rows"),
    [
        ("sigmoid", "sigmoid", 0.0, 5),
        ("ipo", "ipo", 0.0, 5),
        ("hinge", "hinge", 0.0, 5),
        ("robust", "robust", 0.2, 5),
        # TRL has conservative DPO only as AOT, which sorts a batch: one pair is in order.
        ("sigmoid", "aot", 0.2, 1),
    ],
)
@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_value_and_gradient_are_trl_s(name, theirs, label_smoothing, rows, beta, seed):
    from preference.trainer import pair_logprobs

    token_logprobs, inputs = batch(rows, seed)
    ours, reference = (token_logprobs.clone().requires_grad_() for _ in range(2))
    loss = LOSSES[name].function(pair_logprobs(ours, inputs), beta, label_smoothing).mean()
    expected = trl_loss(theirs, reference, inputs, beta, label_smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    loss.backward()
    expected.backward()
    assert reference.grad.abs().sum() > 0
    torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-12, atol=1e-12)


# Properties.


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_are_those_of_finite_differences(name):
    margin = torch.tensor([-3.0, -0.4, 0.7, 2.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m: LOSSES[name].function(pairs(m, tokens=(2, 3)), 0.6, 0.2), margin
    )


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_pair_alone_has_the_loss_that_it_has_in_a_batch(name):
    token_logprobs, inputs = batch(4)
    from preference.trainer import pair_logprobs

    logprobs = pair_logprobs(token_logprobs, inputs)
    together = LOSSES[name].function(logprobs, 0.3, 0.1)
    alone = [
        LOSSES[name].function(PairLogprobs(*(x[row : row + 1] for x in logprobs)), 0.3, 0.1)
        for row in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


@given(margins, betas, shares)
def test_robust_dpo_is_dpo_on_the_right_labels_in_expectation(margin, beta, share):
    right, flipped = (value("robust", sign * margin, beta, share) for sign in (1, -1))
    expected = value("sigmoid", margin, beta)
    assert (1 - share) * right + share * flipped == pytest.approx(expected, abs=1e-6)


@given(st.floats(0.02, 0.45), betas, margins)
def test_conservative_dpo_is_least_where_the_policy_is_as_sure_as_the_labels(share, beta, margin):
    best = math.log((1 - share) / share) / beta
    entropy = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    assert value("sigmoid", best, beta, share) == pytest.approx(entropy, abs=1e-9)
    assert value("sigmoid", margin, beta, share) >= entropy - 1e-9


# Settings.


def settings_file(tmp_path, text):
    path = tmp_path / "dpo.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("loss", ["ipo", "hinge"])
def test_label_smoothing_is_refused_where_it_has_no_effect(tmp_path, loss):
    path = settings_file(tmp_path, f"loss: {loss}\nlabel_smoothing: 0.1\n")
    with pytest.raises(ConfigError, match=r"is 0\.1.*needs loss: sigmoid or robust"):
        load(DPOConfig, path)


@pytest.mark.parametrize("loss", [name for name in LOSSES if LOSSES[name].uses_label_smoothing])
def test_label_smoothing_changes_the_loss_where_it_is_taken(tmp_path, loss):
    config = load(DPOConfig, settings_file(tmp_path, f"loss: {loss}\nlabel_smoothing: 0.3\n"))
    token_logprobs, inputs = batch(4)
    from preference.trainer import pair_logprobs

    logprobs = pair_logprobs(token_logprobs, inputs)
    function = LOSSES[config.loss].function
    smoothed = function(logprobs, config.beta, config.label_smoothing)
    assert not torch.allclose(smoothed, function(logprobs, config.beta, 0.0))


def test_an_unknown_loss_names_those_that_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"'sigmod'.*Did you mean 'sigmoid'.*ipo, hinge, robust"):
        load(DPOConfig, settings_file(tmp_path, "loss: sigmod\n"))
