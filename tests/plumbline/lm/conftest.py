"""What tests of models share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

IDS = torch.tensor([[5, 20, 30, 40, 50]])


def logits(model, ids=IDS) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids).logits


def nudge(model, size=0.05) -> None:
    """Move every trainable weight, as training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def saved(model, folder, source, tokenizer):
    """Save a model as a stage does; nothing is pickled."""
    from plumbline.lm.save import save_model

    folder.mkdir(parents=True)
    save_model(model, tokenizer, folder, source=source, card="# A model\n")
    assert not list(folder.rglob("*.bin"))
    assert not list(folder.rglob("*.pt"))
    return folder


@pytest.fixture
def tools():
    """Functions on models: `logits`, `nudge` and `saved`; ``IDS`` is a text to ask about."""
    return SimpleNamespace(logits=logits, nudge=nudge, saved=saved, IDS=IDS)
