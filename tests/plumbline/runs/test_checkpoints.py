"""Checkpoints: everything comes back, nothing is pickled, and a killed save leaves the old one."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
import torch

from plumbline.runs.checkpoints import CheckpointFolder, rng_state, set_rng_state
from plumbline.runs.metrics import MetricsLog, read_metrics
from plumbline.runs.shares import KeptInShares


def test_a_tree_comes_back_as_it_was(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    weights = torch.randn(3, 4)
    tree = {
        "weights": weights,
        "view": weights[1:],
        "state": {0: {"step": torch.tensor(3.0)}, "betas": (0.9, 0.95), "list": [1, None, "x"]},
        "bf16": weights.bfloat16(),
        "big": 2**62,
    }
    folder.save(3, tree)
    found = folder.load()
    assert torch.equal(found["weights"], weights)
    assert torch.equal(found["view"], weights[1:])
    assert found["state"][0]["step"] == 3
    assert found["state"]["betas"] == (0.9, 0.95)
    assert found["state"]["list"] == [1, None, "x"]
    assert found["bf16"].dtype == torch.bfloat16
    assert found["big"] == 2**62


def test_only_the_latest_is_kept_and_a_half_written_one_does_not_count(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.load() is None
    folder.save(10, {"a": 1})
    folder.save(9, {"a": 2})
    folder.save(200, {"a": 3})
    (tmp_path / "checkpoints" / ".new").mkdir()  # as a killed save leaves it
    assert folder.load() == {"a": 3}
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-200"]
    folder.save(300, {"a": 4})
    assert folder.load() == {"a": 4}


def test_a_kill_while_the_same_step_is_saved_again_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, {"a": 1})
    delete = shutil.rmtree

    def delete_half(path, **options):
        if (path / "state.json").exists():
            (path / "state.json").unlink()
            raise KeyboardInterrupt
        delete(path, **options)

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(shutil, "rmtree", delete_half)
        folder.save(1, {"a": 2})
    assert folder.load() == {"a": 2}
    folder.save(1, {"a": 3})
    assert folder.load() == {"a": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_an_object_without_a_safe_form_is_refused(tmp_path):
    with pytest.raises(TypeError, match="/a/b is set"):
        CheckpointFolder(tmp_path).save(1, {"a": {"b": {1, 2}}})


def test_every_global_generator_goes_on_from_where_it_was(tmp_path):
    folder = CheckpointFolder(tmp_path)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    random.gauss(0, 1), np.random.standard_normal(), torch.rand(1)
    folder.save(1, rng_state())

    def draw():
        return (
            [random.gauss(0, 1) for _ in range(3)],
            np.random.standard_normal(3).tolist(),
            torch.rand(3).tolist(),
        )

    expected = draw()
    set_rng_state(folder.load())
    assert draw() == expected


def test_metrics_forget_what_came_after_the_checkpoint(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.log(1, {"loss": 0.5})
    position = log.position()
    log.log(2, {"loss": float("nan")})
    assert read_metrics(log.path)[1] == {"step": 2, "loss": None}
    MetricsLog(log.path).rewind(position)
    assert read_metrics(log.path) == [{"step": 1, "loss": 0.5}]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]


def test_shares_of_some_processes_are_read_by_others(tmp_path):
    """Seven rows that three processes wrote, of which the last has one, by whole and by parts."""
    from safetensors.torch import save_file

    rows = torch.arange(14.0).view(7, 2)
    files = [tmp_path / f"shares-{process}-of-3.safetensors" for process in range(3)]
    for process, (file, share) in enumerate(zip(files, rows.split(3), strict=True)):
        save_file({"/w": share.clone(), "/empty": rows[: 0 if process else 2].clone()}, file)
    kept = KeptInShares(files, "/w", (7, 2))
    assert torch.equal(kept.whole(), rows)
    for start, stop in [(0, 8), (3, 14), (8, 14), (6, 6), (14, 14), (5, 9)]:
        assert torch.equal(kept.part(start, stop), rows.flatten()[start:stop])
    assert torch.equal(KeptInShares(files, "/empty", (2, 2)).whole(), rows[:2])
