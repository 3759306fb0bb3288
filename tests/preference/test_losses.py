"""Preference losses: by hand, against two reference implementations, and by their properties."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plumbline.config import load
from plumbline.errors import ConfigError
from preference.config import DPOConfig
from preference.logprobs import (
    DIVERGENCES,
    LossSettings,
    PairLogprobs,
    pairs_of_sums,
    response_sums,
)
from preference.losses import LOSSES
from preference.unpaired_losses import UNPAIRED_LOSSES, LabeledLogprobs

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


def value(
    name, margin, beta=1.0, label_smoothing=0.0, *, rejected_ratio=0.0, tokens=(1, 1), **more
):
    settings = LossSettings(beta, label_smoothing, **more)
    given = pairs(margin, rejected_ratio=rejected_ratio, tokens=tokens)
    losses = LOSSES[name].function(given, settings)
    assert losses.shape == (1,)
    return losses.item()


# By hand: sigma(ln 3) = 3/4, and log 3 = 1.0986.
LN3 = math.log(3)
Q, NOT_Q = math.log(3 / 4), math.log(1 / 4)


@pytest.mark.parametrize(
    ("name", "margin", "beta", "label_smoothing", "expected"),
    [
        ("sigmoid", 2 * LN3, 0.5, 0.0, -math.log(3 / 4)),
        ("sigmoid", 2 * LN3, 0.5, 0.2, -0.8 * math.log(3 / 4) - 0.2 * math.log(1 / 4)),
        ("robust", 2 * LN3, 0.5, 0.2, (-0.8 * math.log(3 / 4) + 0.2 * math.log(1 / 4)) / 0.6),
        ("hinge", 3.0, 0.2, 0.0, 0.4),
        ("hinge", 6.0, 0.2, 0.0, 0.0),
        ("ipo", 3.0, 0.25, 0.0, 1.0),  # (3 - 2)^2
        ("sigmoid_norm", 2 * LN3, 0.5, 0.0, -Q),
        # q = 3/4, against labels of 0.8 and 0.2.
        ("exo_pair", LN3, 1.0, 0.2, 0.75 * (Q - math.log(0.8)) + 0.25 * (NOT_Q - math.log(0.2))),
        # m = sigma(ln 3 / 1) = 3/4, exp(-ln 3) = 1/3.
        ("discopop", LN3, 1.0, 0.0, 0.25 * -Q + 0.75 / 3),
        # The rejected response is as likely as under the reference; r(chosen) = ln 3.
        ("nca_pair", LN3, 1.0, 0.0, -Q - 0.5 * NOT_Q - 0.5 * math.log(0.5)),
        ("bco_pair", LN3, 1.0, 0.0, -Q - math.log(0.5)),
        ("sppo_hard", 3.0, 0.25, 0.0, 1.0 + 4.0),  # (3 - 2)^2 + (0 + 2)^2
        ("apo_zero", LN3, 1.0, 0.0, 0.25 + 0.5),
        ("apo_down", LN3, 1.0, 0.0, 0.75 + 0.25),
        ("aot", 2 * LN3, 0.5, 0.2, -0.8 * Q - 0.2 * NOT_Q),
        ("aot_unpaired", 2 * LN3, 0.5, 0.0, -Q),
        ("dpop", 2 * LN3, 0.5, 0.0, -Q),
        ("cpo", 2 * LN3, 0.5, 0.0, -Q),
        ("simpo", 2 * LN3, 0.5, 0.0, -Q),
    ],
)
def test_values_by_hand(name, margin, beta, label_smoothing, expected):
    found = value(name, margin, beta, label_smoothing, discopop_tau=1.0)
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_target_margin_is_taken_from_the_reward_margin():
    for name in ("sigmoid", "sigmoid_norm", "cpo", "simpo"):
        # beta h = 2 ln 3, less ln 3.
        assert value(name, 4 * LN3, 0.5, target_margin=LN3) == pytest.approx(-Q)
    assert value("hinge", 3.0, 0.2, target_margin=0.1) == pytest.approx(0.5)


def test_dpo_positive_pays_for_a_chosen_response_that_became_less_likely():
    # r(chosen) = -1, r(rejected) = -3: h = 2, less 2 * 1; and log sigma(0) = log 1/2.
    found = value("dpop", 2.0, 0.5, rejected_ratio=-3.0, dpop_lambda=2.0)
    assert found == pytest.approx(math.log(2))


def free(chosen, rejected, tokens=(2, 4)):
    """A pair without a reference."""
    numbers = [chosen, rejected, 0.0, 0.0, *tokens]
    return PairLogprobs(*(torch.tensor([x], dtype=torch.float64) for x in numbers))


def test_losses_without_a_reference_by_hand():
    # Per token: log 0.5 of the chosen and log 0.25 of the rejected response.
    logprobs = free(2 * math.log(0.5), 4 * math.log(0.25))

    def of(name, **settings):
        return LOSSES[name].function(logprobs, LossSettings(**settings)).item()

    assert of("sft") == pytest.approx(-math.log(0.5))
    # SimPO: beta log 2 = ln 3, less ln 3 / 2.
    beta = LN3 / math.log(2)
    expected = math.log(1 + math.exp(-LN3 / 2))
    assert of("simpo", beta=beta, target_margin=LN3 / 2) == pytest.approx(expected)
    # AlphaPO with alpha 1: rewards 1 - 1 / 0.5 = -1 and 1 - 1 / 0.25 = -3; with 0 it is SimPO.
    assert of("alphapo", beta=LN3 / 2, alphapo_alpha=1.0) == pytest.approx(-Q)
    assert of("alphapo", beta=beta, alphapo_alpha=0.0) == of("simpo", beta=beta)
    # Sums: 2 log 0.5 - 4 log 0.25 = 6 log 2.
    assert of("cpo", beta=LN3 / (6 * math.log(2))) == pytest.approx(-Q)
    # ORPO: odds 1 and 1/3, whose log-ratio is log 3.
    assert of("orpo", orpo_lambda=0.5) == pytest.approx(math.log(2) - 0.5 * Q)


def test_orpo_is_finite_and_has_a_slope_where_a_response_is_almost_certain():
    logprobs = free(-1e-9, -30.0, tokens=(1, 1))
    logprobs = PairLogprobs(*(x.clone().requires_grad_() for x in logprobs))
    loss = LOSSES["orpo"].function(logprobs, LossSettings())
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logprobs.chosen.grad.isfinite().all()
    assert logprobs.rejected.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "alpha", "expected"),
    [
        ("reverse_kl", 0.5, LN3),
        ("forward_kl", 0.5, 1 - 1 / 3),
        ("js_divergence", 0.5, math.log(2 * 3 / 4)),
        ("alpha_divergence", 0.5, (3**-0.5 - 1) / -0.5),
        ("alpha_divergence", 1.0, LN3),
    ],
)
def test_divergences_by_hand(name, alpha, expected):
    ratio = torch.tensor([LN3], dtype=torch.float64)
    assert DIVERGENCES[name].score(ratio, alpha).item() == pytest.approx(expected)


def test_tokens_behind_the_shorter_response_weigh_less():
    token_logprobs = -torch.tensor([[[1.0, 2.0, 0.0], [1.0, 3.0, 5.0]]])
    tokens = torch.tensor([[2, 3]])
    assert response_sums(token_logprobs, tokens, None).tolist() == [[-3, -9]]
    assert response_sums(token_logprobs, tokens, 1.0).tolist() == [[-3, -9]]
    assert response_sums(token_logprobs, tokens, 0.2).tolist() == [[-3, -5]]


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
    losses = LOSSES["sigmoid"].function(logprobs, LossSettings(beta, label_smoothing))
    assert losses.tolist() == pytest.approx(REFERENCE[beta, label_smoothing], abs=1e-11)


# Against TRL: its own code on the same log-probabilities, value and gradient.


def trl_loss(loss_types, token_logprobs, inputs, settings, ld_alpha=None, weights=None):
    """Run TRL's `_compute_loss` on log-probabilities that no model made."""
    import trl

    mask = inputs["completion_mask"][:, 1:]
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(discopop_tau=settings.discopop_tau),
        accelerator=SimpleNamespace(
            device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x
        ),
        aux_loss_enabled=False,
        ld_alpha=ld_alpha,
        precompute_ref_logps=True,
        f_divergence_type=settings.divergence,
        f_alpha_divergence_coef=settings.divergence_alpha,
        loss_types=loss_types,
        loss_weights=weights or [1.0],
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
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


def our_logprobs(token_logprobs, inputs, ld_alpha=None):
    """The same as losses see it; in TRL's batches the chosen responses are the first half."""
    mask = inputs["completion_mask"][:, 1:]
    # Responses begin in the first column here, as they do in our batches.
    columns = (torch.arange(8) + mask.argmax(1, keepdim=True)) % 8
    by_pair = token_logprobs.gather(1, columns).view(2, -1, 8).transpose(0, 1)
    tokens = mask.sum(1).view(2, -1).T
    reference = torch.stack([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]], dim=1)
    return pairs_of_sums(response_sums(by_pair, tokens, ld_alpha), reference, tokens)


def assert_same(loss, ours, expected, theirs, tolerance=1e-12):
    """Value and gradient are the same, and there is a gradient."""
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=tolerance)
    loss.backward()
    expected.backward()
    real = ours.detach() != 0  # what a loss makes of padding does not matter
    assert theirs.grad[real].abs().sum() > 0
    torch.testing.assert_close(ours.grad[real], theirs.grad[real], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "theirs", "label_smoothing", "rows"),
    [
        ("sigmoid", "sigmoid", 0.0, 5),
        ("ipo", "ipo", 0.0, 5),
        ("hinge", "hinge", 0.0, 5),
        ("robust", "robust", 0.2, 5),
        # TRL has conservative DPO only as AOT, which sorts a batch: one pair is in order.
        ("sigmoid", "aot", 0.2, 1),
        *((name, name, 0.1, 5) for name in ("exo_pair", "aot", "aot_unpaired")),
        *(
            (name, name, 0.0, 5)
            for name in (
                "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop", "sft",
                "sigmoid_norm",
            )
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_value_and_gradient_are_trl_s(name, theirs, label_smoothing, rows, beta, seed):
    token_logprobs, inputs = batch(rows, seed)
    settings = LossSettings(beta, label_smoothing)
    ours, reference = (token_logprobs.clone().requires_grad_() for _ in range(2))
    loss = LOSSES[name].function(our_logprobs(ours, inputs), settings).mean()
    expected = trl_loss([theirs], reference, inputs, settings)
    # TRL has EXO's label smoothing in float32.
    assert_same(loss, ours, expected, reference, 1e-7 if name == "exo_pair" else 1e-12)


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "hinge", "robust", "discopop", "sigmoid_norm"])
@pytest.mark.parametrize(
    ("divergence", "alpha"),
    [
        ("forward_kl", 0.5),
        ("js_divergence", 0.5),
        ("alpha_divergence", 0.3),
        ("alpha_divergence", 1.5),
    ],
)
def test_divergences_are_trl_s(name, divergence, alpha):
    token_logprobs, inputs = batch(5)
    settings = LossSettings(0.3, 0.2, divergence=divergence, divergence_alpha=alpha)
    if name in ("sigmoid", "sigmoid_norm"):
        settings = settings._replace(label_smoothing=0.0)  # TRL's take none
    if divergence == "alpha_divergence":  # TRL's takes no float64
        token_logprobs = token_logprobs.float()
        inputs |= {key: inputs[key].float() for key in ("ref_chosen_logps", "ref_rejected_logps")}
    ours, reference = (token_logprobs.clone().requires_grad_() for _ in range(2))
    loss = LOSSES[name].function(our_logprobs(ours, inputs), settings).mean()
    tolerance = 2e-5 if divergence == "alpha_divergence" else 1e-12
    expected = trl_loss([name], reference, inputs, settings)
    assert_same(loss, ours, expected, reference, tolerance)


@pytest.mark.parametrize("ld_alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["sigmoid", "hinge", "apo_down"])
def test_length_desensitised_losses_are_trl_s(name, ld_alpha):
    token_logprobs, inputs = batch(5)
    settings = LossSettings(0.3)
    ours, reference = (token_logprobs.clone().requires_grad_() for _ in range(2))
    loss = LOSSES[name].function(our_logprobs(ours, inputs, ld_alpha), settings).mean()
    expected = trl_loss([name], reference, inputs, settings, ld_alpha)
    assert_same(loss, ours, expected, reference)


def trl_trainer_without_reference(**settings):
    """What TRL's losses without a reference read of their trainers."""
    import os

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    trainer = SimpleNamespace(accelerator=SimpleNamespace(device="cpu"), **settings)
    return (
        lambda *logprobs: CPOTrainer.cpo_loss(trainer, *logprobs)[0],
        lambda *logprobs: ORPOTrainer.odds_ratio_loss(trainer, *logprobs)[0],
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    ("name", "loss_type", "alpha"),
    [("cpo", "sigmoid", 0.0), ("simpo", "simpo", 0.0), ("alphapo", "simpo", 0.25)],
)
def test_losses_without_a_reference_are_trl_s(name, loss_type, alpha, label_smoothing):
    token_logprobs, inputs = batch(5)
    ours, reference = (token_logprobs.clone().requires_grad_() for _ in range(2))
    gamma = 0.0 if name == "cpo" else 0.3
    settings = LossSettings(0.8, label_smoothing, gamma, alphapo_alpha=alpha)
    loss = LOSSES[name].function(our_logprobs(ours, inputs), settings).mean()
    theirs, _ = trl_trainer_without_reference(
        beta=0.8, alpha=alpha, simpo_gamma=gamma, label_smoothing=label_smoothing,
        loss_type=loss_type,
    )  # fmt: skip
    seen = our_logprobs(reference, inputs)
    pair = (seen.chosen, seen.rejected)
    if name != "cpo":
        pair = (seen.chosen_mean, seen.rejected_mean)
    assert_same(loss, ours, theirs(*pair).mean(), reference)


def test_the_odds_ratio_is_trl_s():
    token_logprobs, inputs = batch(5)
    ours, reference = (token_logprobs.clone().requires_grad_() for _ in range(2))
    settings = LossSettings(orpo_lambda=0.4)
    seen = our_logprobs(ours, inputs)
    loss = (LOSSES["orpo"].function(seen, settings) - LOSSES["sft"].function(seen, settings)).mean()
    _, theirs = trl_trainer_without_reference(beta=0.4)
    seen = our_logprobs(reference, inputs)
    expected = -theirs(seen.chosen_mean, seen.rejected_mean).mean()
    # TRL computes it in float32.
    assert_same(loss, ours, expected.double(), reference, 1e-6)


# Responses without pairs.


def labelled(shift=0.0):
    generator = torch.Generator().manual_seed(0)
    policy, reference = -5 * torch.rand(2, 6, generator=generator, dtype=torch.float64)
    desirable = torch.tensor([True, False, True, True, False, False])
    return LabeledLogprobs(policy, reference, desirable, torch.tensor(shift, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "shift", "liked", "disliked"),
    [
        # beta r = 2 ln 3; the KL takes beta KL = ln 3 of it, BCO's shift as much.
        ("kto", 2 * LN3, 2 * 0.25, 3 * 0.75),
        ("apo_zero_unpaired", 0.0, 2 * 0.1, 3 * 0.9),
        ("bco", LN3, 2 * -Q, 3 * -NOT_Q),
    ],
)
def test_losses_of_labels_by_hand(name, shift, liked, disliked):
    ratio = torch.full((2,), 4 * LN3, dtype=torch.float64)
    desirable = torch.tensor([True, False])
    logprobs = LabeledLogprobs(ratio, 0 * ratio, desirable, torch.tensor(shift))
    settings = LossSettings(0.5, desirable_weight=2.0, undesirable_weight=3.0)
    losses = UNPAIRED_LOSSES[name].function(logprobs, settings)
    assert losses.tolist() == pytest.approx([liked, disliked], abs=1e-6)


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("kl", [-1.0, 0.4])
def test_losses_of_labels_are_trl_s(name, kl):
    """TRL's `_compute_loss` on sums that no model made, one token a response."""
    import trl

    logprobs, settings = labelled(max(kl, 0.0)), LossSettings(0.3, desirable_weight=1.5)
    rows = len(logprobs.policy)
    ours, theirs = (logprobs.policy.clone().requires_grad_() for _ in range(2))
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x,
            unwrap_model=lambda x: x,
        ),
        calculate_KL=name == "kto", precompute_ref_logps=True, aux_loss_enabled=False,
        loss_type=name, beta=0.3, desirable_weight=1.5, undesirable_weight=1.0, _tp_size=1,
        _total_train_tokens=0, _metrics={"train": defaultdict(list)},
        _compute_kl_logps=lambda model, batch: torch.full((rows,), kl, dtype=torch.float64),
    )  # fmt: skip
    outputs = SimpleNamespace(
        log_probs=theirs.unsqueeze(1),
        entropy=torch.zeros(rows, 1),
        mean_logits=torch.zeros(rows, 1),
        is_top1=torch.zeros(rows, 1, dtype=torch.bool),
    )
    inputs = {
        "input_ids": torch.ones(rows, 2, dtype=torch.long),
        "attention_mask": torch.ones(rows, 2, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 1]] * rows),
        "label": logprobs.desirable.long(),
        "ref_logps": logprobs.reference,
        "ref_KL_logps": torch.zeros(rows, dtype=torch.float64),
    }
    expected = trl.KTOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)
    loss = UNPAIRED_LOSSES[name].function(logprobs._replace(policy=ours), settings).mean()
    assert_same(loss, ours, expected, theirs)


# Properties.


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_are_those_of_finite_differences(name):
    numbers = torch.tensor(
        [[-3.0, -0.4, -0.7, -2.5], [-1.1, -2.0, -4.3, -0.2]], dtype=torch.float64,
        requires_grad=True,
    )  # fmt: skip
    reference = torch.tensor([[-1.0, -2.0, -3.0, -1.5]], dtype=torch.float64).repeat(2, 1)
    tokens = torch.tensor([[2, 3]] * 4)
    settings = LossSettings(0.6, 0.2)
    assert torch.autograd.gradcheck(
        lambda x: LOSSES[name].function(pairs_of_sums(x.T, reference.T, tokens), settings), numbers
    )


@pytest.mark.parametrize("name", [n for n in LOSSES if not LOSSES[n].couples_pairs])
def test_a_pair_alone_has_the_loss_that_it_has_in_a_batch(name):
    token_logprobs, inputs = batch(4)
    logprobs, settings = our_logprobs(token_logprobs, inputs), LossSettings(0.3, 0.1)
    together = LOSSES[name].function(logprobs, settings)
    alone = [
        LOSSES[name].function(PairLogprobs(*(x[row : row + 1] for x in logprobs)), settings)
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
    with pytest.raises(ConfigError, match=r"is 0\.1.*needs loss: sigmoid or sigmoid_norm"):
        load(DPOConfig, path)


@pytest.mark.parametrize("loss", [name for name in LOSSES if LOSSES[name].uses_label_smoothing])
def test_label_smoothing_changes_the_loss_where_it_is_taken(tmp_path, loss):
    config = load(DPOConfig, settings_file(tmp_path, f"loss: {loss}\nlabel_smoothing: 0.3\n"))
    logprobs = our_logprobs(*batch(4))
    function = LOSSES[config.loss].function
    smoothed = function(logprobs, LossSettings(config.beta, config.label_smoothing))
    assert not torch.allclose(smoothed, function(logprobs, LossSettings(config.beta, 0.1)))


def test_an_unknown_loss_names_those_that_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"'sigmod'.*Did you mean 'sigmoid'.*ipo, hinge, robust"):
        load(DPOConfig, settings_file(tmp_path, "loss: sigmod\n"))
