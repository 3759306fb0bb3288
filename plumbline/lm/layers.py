"""The layers of a model in groups, from the last to the first: which train, and from when on."""

from __future__ import annotations

from typing import Any

from torch import nn

from plumbline.errors import ModelError


def layer_groups(model: Any) -> list[list[nn.Parameter]]:
    """Return a model's weights in groups, in the order in which they are unfrozen.

    The first group is the last layer with what stands behind it, a head of its own among that; the
    last one is the embedding, with a head that shares its weights. Raises `ModelError` where a
    model has no list of layers.
    """
    trunk = model.base_model
    layers = getattr(trunk, "layers", getattr(trunk, "h", None))
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"{type(model).__name__} has no list of layers, by which last_layers and progressive "
            "choose what trains. Set tuning.method to full or lora."
        )
    embedding = {id(p): p for p in model.get_input_embeddings().parameters()}
    groups = [list(layer.parameters()) for layer in reversed(layers)]
    inside = {id(p) for group in groups for p in group} | set(embedding)
    groups[0] += [p for p in model.parameters() if id(p) not in inside]
    return [*groups, list(embedding.values())]


def train_last_layers(model: Any, count: int) -> None:
    """Freeze all but the last ``count`` layers and what stands behind them."""
    groups = layer_groups(model)
    layers = len(groups) - 1
    if count > layers:
        raise ModelError(
            f"tuning.trained_layers is {count}, but the model has {layers} layers. Lower it, or "
            "set tuning.method to full."
        )
    for number, group in enumerate(groups):
        for parameter in group:
            parameter.requires_grad_(number < count)


def unfrozen_groups(step: int, steps: int, groups: int, unfrozen_by: float) -> int:
    """Return how many of the groups train in a step (counted from 0) of ``steps``.

    One at first; all from ``unfrozen_by`` of the steps on; evenly between.

    For 10 steps, 3 groups and 0.5: 1, 1, 1, 2, 2 and 3 groups in the first six steps.
    """
    share = step / max(steps * unfrozen_by, 1.0)
    return min(groups, 1 + int(share * (groups - 1) + 1e-9))
