"""Forms of AdamW: the same steps, up to the bits in which moments are held."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from plumbline.errors import ModelError
from plumbline.training import optimizers
from plumbline.training.config import TrainingConfig
from plumbline.training.optimizers import OPTIMIZERS

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


def steps(name):
    """A few steps along the same gradients, from the same weights."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(64, 128, generator=generator))
    optimizer = OPTIMIZERS[name].make([weight], 1e-2, epsilon=1e-5, weight_decay=0.1)
    for _ in range(5):
        weight.grad = torch.randn(64, 128, generator=generator)
        optimizer.step()
    return weight.detach()


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(
    ("name", "error"), [("adamw_8bit", 0.1), ("paged_adamw", 1e-5), ("paged_adamw_8bit", 0.1)]
)
def test_steps_are_those_of_torchs_adamw(name, error):
    expected = steps("adamw")
    moved = expected - torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    assert float((steps(name) - expected).norm() / moved.norm()) < error


def test_one_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(optimizers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="bitsandbytes"):
        OPTIMIZERS["adamw_8bit"].make([torch.nn.Parameter(torch.zeros(2))], 0.1)


def test_trainers_of_transformers_get_their_own_name_of_it(tmp_path):
    assert TrainingConfig().arguments(tmp_path, 0)["optim"] == "adamw_torch_fused"
    config = TrainingConfig(optimizer="paged_adamw_8bit")
    assert config.arguments(tmp_path, 0)["optim"] == "paged_adamw_8bit"


def test_bfloat16_is_the_default_on_a_gpu_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not TrainingConfig().arguments(tmp_path, 0)["bf16"]
    assert TrainingConfig(bf16=True).arguments(tmp_path, 0)["bf16"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    assert TrainingConfig().arguments(tmp_path, 0)["bf16"]
    assert not TrainingConfig(bf16=False).arguments(tmp_path, 0)["bf16"]
