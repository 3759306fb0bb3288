"""The table of methods against the start: made-up trainings whose wins are known."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from evaluation.comparison import method_table as room
from evaluation.comparison.method_table import method_table, tabulate_methods
from evaluation.comparison.training_runs import Baseline, CheckpointEval
from plumbline.statistics import holm, win_rate


def start_of(responses, prompts=12):
    rows = responses(np.linspace(0.0, 1.0, prompts))
    return Baseline("sft", "SFT", CheckpointEval(0, rows, {"tokens": 0.0}))


def cells_of(runs, baseline):
    cells = method_table(runs, baseline, "gold", 0.95)
    return {(cell.method, cell.at): cell for cell in cells}


def test_a_method_wins_where_its_scores_are_higher(make_training, make_responses):
    up, down = make_training("ppo"), make_training("dpo", gains=(0, -1, -1))
    cells = cells_of([up, down], start_of(make_responses))
    assert {at for _, at in cells} == {"best", "kl", "tokens", "end"}
    for at in ("best", "kl", "tokens", "end"):
        assert (cells["ppo", at].win_rate, cells["dpo", at].win_rate) == (1.0, 0.0)
    assert cells["ppo", "end"].kl == pytest.approx(4.0)
    assert (cells["ppo", "end"].seeds, cells["ppo", "end"].prompts) == (1, 12)


def test_the_best_checkpoint_is_chosen_on_the_other_half_of_the_prompts(
    make_training, make_responses
):
    """One checkpoint is better on even prompts, the other on odd ones: neither gains by luck."""
    run = make_training("ppo")
    base = np.linspace(0.0, 1.0, 12)
    signs = np.where(np.arange(12) % 2 == 0, 1.0, -1.0)
    even, odd = (
        CheckpointEval(step, make_responses(base + sign * signs), {"tokens": 1.0})
        for step, sign in ((10, 1), (20, -1))
    )
    run = type(run)(**{**run.__dict__, "checkpoints": [run.checkpoints[0], even, odd]})
    cells = cells_of([run], start_of(make_responses))
    # On its own half the chosen one loses everywhere; chosen on all prompts it would have won half.
    assert cells["ppo", "best"].win_rate == 0.0


def test_the_start_of_a_training_is_not_its_best_checkpoint(make_training, make_responses):
    run = make_training("dpo", gains=(0, -1, -2))
    assert cells_of([run], start_of(make_responses))["dpo", "best"].win_rate == 0.0


def test_at_the_same_kl_wins_are_interpolated_as_scores_are(make_training, make_responses):
    # √KL is 0 and 2 around the limit of 1, so half of the ties at the start and of the wins.
    far, near = make_training("ppo", gains=(0, 1), kls=(0, 4)), make_training("dpo", kls=(0, 1, 1))
    cells = cells_of([far, near], start_of(make_responses))
    assert cells["ppo", "kl"].win_rate == pytest.approx(0.75)
    assert cells["ppo", "kl"].kl == pytest.approx(1.0)
    assert cells["dpo", "kl"].win_rate == 1.0


def test_intervals_are_those_of_win_rates_and_p_values_are_held_together(
    make_training, make_responses
):
    runs = [
        make_training(method, seed, gains=(0, gain, gain), noise=0.4)
        for method, gain in (("ppo", 0.3), ("dpo", 0.0))
        for seed in range(3)
    ]
    baseline = start_of(make_responses)
    cells = cells_of(runs, baseline)
    scores = np.array([[row["gold"] for row in run.final.rows] for run in runs[:3]])
    base = np.array([[row["gold"] for row in baseline.evaluation.rows]])
    expected = win_rate(scores, base)
    found = cells["ppo", "end"]
    assert (found.win_rate, found.low, found.high, found.p) == pytest.approx(
        (expected.difference, expected.low, expected.high, expected.p_value)
    )
    values = list(cells.values())
    assert [cell.p_adjusted for cell in values] == pytest.approx(holm([c.p for c in values]))


def test_the_table_is_written_for_people_and_programs(
    make_training, make_responses, stage, monkeypatch
):
    runs = [make_training("ppo", seed, noise=0.2) for seed in range(2)]
    monkeypatch.setattr(room, "training_runs_of", lambda methods: runs)
    monkeypatch.setattr(room, "baseline_of", lambda artifact: start_of(make_responses))
    figures = tabulate_methods(
        stage, judge="gold", baseline=SimpleNamespace(), methods={}, confidence=0.95
    )
    rows = json.loads((stage.folder / "methods.json").read_text())
    assert [row["at"] for row in rows] == ["best", "kl", "tokens", "end"]
    assert figures["ppo_at_end"] == rows[-1]["win_rate"]
    with (stage.folder / "methods.csv").open() as file:
        assert [row["at"] for row in csv.DictReader(file)] == [row["at"] for row in rows]
    text = (stage.folder / "methods.md").read_text()
    assert "| PPO | " in text and "4.0 |" in text
    assert "At the same tokens: 2e+03 tokens" in text
