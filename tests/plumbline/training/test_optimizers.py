"""Optimisers that step together: as each alone, with one scheduler, and resumable."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from plumbline.lm.load import load_causal_lm
from plumbline.training.optimizers import muon_with_adamw


def make(model):
    return muon_with_adamw(
        model, muon_learning_rate=0.02, learning_rate=3e-3, weight_decay=0.1, adam_beta2=0.95
    )


def step(model, optimizer, scheduler=None):
    ids = torch.tensor([[5, 20, 30, 40, 50]])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if scheduler is not None:
        scheduler.step()


@pytest.fixture
def model(base_folder):
    torch.manual_seed(0)
    return load_causal_lm(base_folder).eval()


def test_every_weight_has_one_optimizer_and_matrices_have_muon(model):
    together = make(model)
    muon, adam = together.optimizers
    ids = [id(p) for group in together.param_groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    named = {id(p): name for name, p in model.named_parameters()}
    inside = {named[id(p)] for group in muon.param_groups for p in group["params"]}
    assert all("layers." in name and "norm" not in name for name in inside)
    assert len(inside) == 7 * 2
    assert isinstance(adam, AdamW)


def test_together_is_each_alone(model):
    other = copy.deepcopy(model)
    together = make(model)
    inside = [p for n, p in other.named_parameters() if p.ndim == 2 and "layers." in n]
    rest = [p for n, p in other.named_parameters() if not (p.ndim == 2 and "layers." in n)]
    alone = [
        Muon(inside, lr=0.02, weight_decay=0.1),
        AdamW(rest, lr=3e-3, weight_decay=0.1, betas=(0.9, 0.95)),
    ]
    for _ in range(3):
        step(model, together)
        ids = torch.tensor([[5, 20, 30, 40, 50]])
        other(input_ids=ids, labels=ids).loss.backward()
        for optimizer in alone:
            optimizer.step()
            optimizer.zero_grad()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_one_scheduler_sets_both_rates(model):
    together = make(model)
    scheduler = LambdaLR(together, lambda step: 0.5**step)
    step(model, together, scheduler)
    rates = [group["lr"] for optimizer in together.optimizers for group in optimizer.param_groups]
    assert rates == pytest.approx([0.01, 1.5e-3])


def test_a_restored_state_goes_on_exactly(model):
    together = make(model)
    scheduler = LambdaLR(together, lambda step: 0.9**step)
    for _ in range(2):
        step(model, together, scheduler)
    twin = copy.deepcopy(model)
    restored = make(twin)
    twin_scheduler = LambdaLR(restored, lambda step: 0.9**step)
    restored.load_state_dict(copy.deepcopy(together.state_dict()))
    twin_scheduler.load_state_dict(scheduler.state_dict())
    for _ in range(2):
        step(model, together, scheduler)
        step(twin, restored, twin_scheduler)
    for one, two in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_closure_is_refused(model):
    with pytest.raises(ValueError, match="no closure"):
        make(model).step(lambda: 0.0)
