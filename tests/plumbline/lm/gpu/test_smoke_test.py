"""The trial of every fast path, and what the doctor says of it."""

from __future__ import annotations

import pytest
import torch

from plumbline.commands import doctor
from plumbline.lm.gpu import smoke_test, status
from plumbline.lm.gpu.status import FastPath, findings


@pytest.fixture(autouse=True)
def nothing_is_known():
    status.forget()
    yield
    status.forget()


def test_every_path_that_a_cpu_has_is_tried():
    assert smoke_test.try_fast_paths("cpu") == "tried on a small model"
    on = {path for (path, _, _), found in findings().items() if found.on}
    assert on == {FastPath.PASSES, FastPath.DECODING}


def test_the_doctor_says_that_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(doctor._fast_paths()) == [("fast paths", True, "for a GPU, and there is none")]


def test_the_doctor_says_which_are_off_and_why(monkeypatch):
    def tried():
        status.switch_on(FastPath.DECODING, torch.device("cuda"), "Qwen2ForCausalLM", "off by 1e-3")
        status.switch_off(FastPath.GRAPHS, torch.device("cuda"), "capturing failed")
        return "tried on a small model"

    monkeypatch.setattr(smoke_test, "try_fast_paths", tried)
    assert list(doctor._fast_paths()) == [
        ("fast paths", True, "tried on a small model"),
        ("decoding from a static cache", True, "Qwen2ForCausalLM, off by 1e-3"),
        ("decoding steps as CUDA graphs", False, "capturing failed"),
    ]
