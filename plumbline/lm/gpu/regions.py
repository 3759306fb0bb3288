"""Which functions are compiled, and where: on a GPU by `torch.compile`, nowhere else.

A region is a pure function of tensors. Its first compiled result on a device is compared with the
plain one. A region that does not compile, or gives another result, is called as it is from then on,
with a message.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from platformdirs import user_cache_path
from torch import Tensor

from plumbline.lm.gpu.status import FastPath, finding, switch_off, switch_on

P = ParamSpec("P")
T = TypeVar("T")

#: Set to 0 in the environment to compile nothing, and to 1 to compile on a CPU, too.
SETTING = "PLUMBLINE_COMPILE"
#: One function is compiled for several models, with and without gradients and adapters.
_VARIANTS = 64
#: Largest error, relative to the size of the result, that passes for rounding, by bytes per number;
#: and the share of whole numbers (drawn tokens) that may differ for it.
_ERRORS, _SHARE_OF_WHOLE = {2: 0.03, 4: 1e-3, 8: 1e-6}, 0.1

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
    setting = os.environ.get(SETTING)
    return setting == "1" if setting in ("0", "1") else torch.device(device).type == "cuda"


def region(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function a region; its first argument must be a tensor, whose device decides.

    Only the first dimension of a tensor may change without compiling again, and only where it is
    marked by `free_rows`.
    """
    name = function.__name__.strip("_")
    compiled: list[Callable[P, T]] = []

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        tensor: Any = arguments[0]
        device: torch.device = tensor.device
        if not compiles(device):
            return function(*arguments, **options)
        earlier = finding(FastPath.COMPILED, device, name)
        if earlier is not None and not earlier.on:
            return function(*arguments, **options)
        if not compiled:
            config: Any = torch._dynamo.config
            config.recompile_limit = max(config.recompile_limit, _VARIANTS)
            _keep_code()
            compiled.append(torch.compile(function, dynamic=False))
        try:
            result = compiled[0](*arguments, **options)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no failure of a compiler may stop the run
            switch_off(FastPath.COMPILED, device, f"{type(error).__name__}: {error}", name)
            return function(*arguments, **options)
        if earlier is None:
            with torch.no_grad():
                off_by = _error(result, function(*arguments, **options))
            if off_by >= 1.0:
                reason = f"its result is off by {off_by:.1f} times what rounding explains"
                switch_off(FastPath.COMPILED, device, reason, name)
                return function(*arguments, **options)
            switch_on(FastPath.COMPILED, device, name)
        return result

    return call


def _keep_code() -> None:
    """Let torch keep compiled code in the user's cache, for the next process.

    Its own place is a folder for temporary files, which many machines empty when they start.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    folder = user_cache_path("plumbline") / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


def free_rows(*tensors: Tensor | None) -> None:
    """Let the first dimension of tensors change from call to call of a region."""
    for tensor in tensors:
        if tensor is not None and compiles(tensor.device):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)


def _error(result: Any, expected: Any) -> float:
    """Return the largest error of a region's tensors, in what rounding explains."""
    if isinstance(result, tuple | list):
        errors = [_error(*pair) for pair in zip(result, expected, strict=True)]
        return max(errors, default=0.0)
    if not isinstance(result, Tensor) or not result.numel():
        return 0.0
    if not result.dtype.is_floating_point:
        return float((result != expected).float().mean()) / _SHARE_OF_WHOLE
    value, other = result.detach().double(), expected.detach().double()
    error = float((value - other).norm() / other.norm().clamp(min=1e-12))
    return error / _ERRORS[result.dtype.itemsize] if math.isfinite(error) else math.inf
