"""Regions: compiled where asked, compared with the plain function once, given up with a word."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm.gpu import status
from plumbline.lm.gpu.regions import SETTING, compiles, free_rows, region, uncompiled
from plumbline.lm.gpu.status import FastPath, finding

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_is_known():
    status.forget()
    yield
    status.forget()


@pytest.fixture
def compiler(monkeypatch):
    """Compile on the CPU, by what a test says; returns a function that sets it."""
    monkeypatch.setenv(SETTING, "1")

    def by(make):
        monkeypatch.setattr(torch, "compile", lambda function, **_: make(function))

    return by


def test_where_regions_are_compiled(monkeypatch):
    monkeypatch.delenv(SETTING, raising=False)
    assert not compiles("cpu")
    assert compiles("cuda")
    monkeypatch.setenv(SETTING, "0")
    assert not compiles("cuda")
    monkeypatch.setenv(SETTING, "1")
    assert compiles("cpu")
    with uncompiled():
        assert not compiles("cpu")
    assert compiles("cpu")


def test_a_compiled_region_is_compared_once(compiler):
    plain_calls, compiled_calls = [], []

    def double(x):
        plain_calls.append(1)
        return 2 * x

    compiler(lambda function: lambda x: (compiled_calls.append(1), 2 * x)[1])
    fast = region(double)
    for _ in range(3):
        assert torch.equal(fast(torch.ones(2)), torch.full((2,), 2.0))
    assert len(plain_calls) == 1
    assert len(compiled_calls) == 3
    assert finding(FastPath.COMPILED, CPU, "double").on


@pytest.mark.parametrize("wrong", [1.1, float("nan")])
def test_one_that_says_something_else_is_given_up(compiler, caplog, wrong):
    compiler(lambda function: lambda x: wrong * function(x))
    fast = region(lambda x: 2 * x)
    assert torch.equal(fast(torch.ones(2)), torch.full((2,), 2.0))
    assert not finding(FastPath.COMPILED, CPU, "<lambda>").on
    assert "compiled layers: off" in caplog.text


def test_one_that_does_not_compile_is_given_up_even_later(compiler, caplog):
    def make(function):
        def compiled(x):
            if len(x) == 3:
                raise RuntimeError("no compiler for three")
            return function(x)

        return compiled

    compiler(make)
    fast = region(lambda x: 2 * x)
    fast(torch.ones(2))
    assert not caplog.text
    assert fast(torch.ones(3)).tolist() == [2.0] * 3
    assert "no compiler for three" in caplog.text
    assert fast(torch.ones(2)).tolist() == [2.0] * 2


def test_a_memory_that_runs_out_is_no_fault_of_the_compiler(compiler):
    def make(function):
        def compiled(x):
            raise torch.OutOfMemoryError("no memory")

        return compiled

    compiler(make)
    with pytest.raises(torch.OutOfMemoryError):
        region(lambda x: x)(torch.ones(2))
    assert finding(FastPath.COMPILED, CPU, "<lambda>") is None


@pytest.mark.slow
def test_rows_are_free_and_gradients_flow(monkeypatch):
    """The real compiler, on a layer's worth of operations."""
    monkeypatch.setenv(SETTING, "1")

    def function(x, weight):
        return torch.nn.functional.silu(x @ weight.t()).sum(1)

    fast = region(function)
    weight = torch.randn(5, 4, requires_grad=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for rows in (3, 7, 20):
        x = torch.randn(rows, 4, requires_grad=True)
        free_rows(x)
        (found,) = torch.autograd.grad(fast(x, weight).sum(), x)
        (expected,) = torch.autograd.grad(function(x, weight).sum(), x)
        torch.testing.assert_close(found, expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before + 1
