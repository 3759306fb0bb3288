"""Which functions are compiled, and where: on a GPU by `torch.compile`, nowhere else.

A region is a pure function of tensors. Compiled regions are kept for the whole process.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

#: Set to 0 in the environment to compile nothing, and to 1 to compile on a CPU, too.
SETTING = "PLUMBLINE_COMPILE"
#: One function is compiled for several models, with and without gradients and adapters.
_VARIANTS = 64


_off = False


@contextmanager
def uncompiled() -> Iterator[None]:
    """Call regions as they are for a while."""
    global _off  # noqa: PLW0603 - one switch of the process, for a check that lasts a moment
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


def compiles(device: torch.device | str) -> bool:
    """Return whether regions are compiled on a device."""
    if _off:
        return False
    asked = os.environ.get(SETTING)
    return asked == "1" if asked in ("0", "1") else torch.device(device).type == "cuda"


def region(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function a region; its first argument must be a tensor, whose device decides.

    Only the first dimension of a tensor may change without compiling anew, and only where it is
    marked by `free_rows`.
    """
    compiled: list[Callable[P, T]] = []

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        tensor: Any = arguments[0]
        if not compiles(tensor.device):
            return function(*arguments, **options)
        if not compiled:
            config: Any = torch._dynamo.config
            config.recompile_limit = max(config.recompile_limit, _VARIANTS)
            compiled.append(torch.compile(function, dynamic=False))
        return compiled[0](*arguments, **options)

    return call


def free_rows(*tensors: Tensor | None) -> None:
    """Let the first dimension of tensors change from call to call of a region."""
    for tensor in tensors:
        if tensor is not None and compiles(tensor.device):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
