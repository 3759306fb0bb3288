"""Roles on one base: which adapter a model uses, and switching it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Role = str | None
"""The name of an adapter; None for the base alone."""

#: Stands for the adapter that is active.
ACTIVE = "<active>"


class SeveralAdaptersError(Exception):
    """Several adapters are active at once."""


def active_adapter(model: Any) -> Role:
    """Return the adapter that a model has active; None where it has none, or none is enabled.

    Raises `SeveralAdaptersError` where several are active at once.
    """
    if not hasattr(model, "peft_config"):
        return None
    from peft.tuners.tuners_utils import BaseTunerLayer

    first = next((m for m in model.modules() if isinstance(m, BaseTunerLayer)), None)
    if first is None or first.disable_adapters:
        return None
    active = list(first.active_adapters)
    if len(active) > 1:
        raise SeveralAdaptersError
    return active[0] if active else None


def copy_adapter(model: Any, source: str, name: str) -> None:
    """Add an adapter that starts as an exact copy of another."""
    model.add_adapter(name, model.peft_config[source])
    parameters = dict(model.named_parameters())
    for key, parameter in parameters.items():
        if is_of_role(key, source):
            parameters[under_role(key, source, name)].data.copy_(parameter.data)


def is_of_role(name: str, role: str) -> bool:
    """Return whether a weight is an adapter's, by its name, which has the role's as a part."""
    return role in name.split(".")


def under_role(name: str, role: str, other: str) -> str:
    """Return what an adapter's weight is called in another adapter of the same form."""
    return ".".join(other if part == role else part for part in name.split("."))


def role_parameters(model: Any, role: str) -> dict[str, Any]:
    """Return the weights of an adapter by name; of a model without adapters, all of them."""
    if not hasattr(model, "peft_config"):
        return dict(model.named_parameters())
    return {name: p for name, p in model.named_parameters() if is_of_role(name, role)}


@contextmanager
def using_adapter(model: Any, name: Role) -> Iterator[None]:
    """Make one adapter the active one, or none (``name=None``: the base alone), for a while.

    Does nothing to a model without adapters. Which weights train stays as it was: PEFT switches
    that with the adapter, and a backward pass after the switch would then leave them out.
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel) or name == ACTIVE:
        yield
        return
    training = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    before = model.active_adapter
    try:
        if name is None:
            with model.disable_adapter():
                yield
        else:
            model.set_adapter(name)
            yield
    finally:
        model.set_adapter(before)
        for parameter, trains in training:
            parameter.requires_grad = trains
