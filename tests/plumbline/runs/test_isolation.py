"""Processes of stages: what they have imported when they start, and why they ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing import forkserver

import pytest

import recipes.train_sft
from plumbline.runs.isolation import StageDiedError, process_server, run_isolated
from plumbline.runs.progress import Reporter


def test_the_server_imports_what_the_command_has(monkeypatch):
    """Or each stage would import it again, which takes longer than many a stage."""
    monkeypatch.setattr(forkserver._forkserver, "_preload_modules", [])
    process_server()
    libraries, *ours = forkserver._forkserver._preload_modules
    assert libraries == "plumbline.runs.preload"
    assert {recipes.train_sft.__name__, "sft.train", "plumbline.config"} <= set(ours)
    assert "torch" not in ours and "plumbline.__main__" not in ours
    assert set(ours) <= set(sys.modules)


def lose_the_other(stage, *, killed):
    """One process is killed; the other says at once that it cannot reach it."""
    if int(os.environ["RANK"]) == killed:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("connection reset by peer")


@pytest.mark.parametrize("killed", [0, 1])
def test_the_process_that_was_killed_is_the_reason_and_not_the_one_that_misses_it(tmp_path, killed):
    with pytest.raises(StageDiedError, match="killed the stage's process"):
        run_isolated(
            lose_the_other, tmp_path, {"killed": killed}, Reporter(quiet=True), lambda: None,
            processes=2,
        )  # fmt: skip
