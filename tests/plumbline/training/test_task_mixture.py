"""Several tasks in one training: weights, draws, and gradients that point against each other."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch

from plumbline.training.conflicts import without_conflicts
from plumbline.training.task_mixture import TaskSampler, TaskWeights, slower_tasks_first


def test_weights_move_to_the_task_that_falls_slowest_by_hand():
    # Falls 0.2, 0 and -0.1 over the largest, 0.2: exp(-1), exp(0), exp(0.5).
    raw = [0.5 * math.exp(-1), 0.25, 0.25 * math.exp(0.5)]
    expected = [w / sum(raw) for w in raw]
    assert slower_tasks_first([0.5, 0.25, 0.25], [0.2, 0.0, -0.1]) == pytest.approx(expected)
    assert slower_tasks_first([0.7, 0.3], [0.0, 0.0]) == [0.7, 0.3]


def test_weights_hold_from_the_second_step_after_they_were_set():
    weights = TaskWeights([0.5, 0.5], moves=True)
    weights.look(10, [2.0, 2.0])
    weights.look(20, [1.0, 2.0])
    assert weights.at(21) == [0.5, 0.5]
    assert weights.at(22)[1] > 0.7 and sum(weights.at(22)) == pytest.approx(1.0)
    again = TaskWeights([0.5, 0.5], moves=True)
    again.restore(weights.state())
    assert again.at(22) == weights.at(22) and again.losses == weights.losses
    fixed = TaskWeights([0.5, 0.5])
    fixed.look(1, [3.0, 1.0])
    fixed.look(2, [1.0, 1.0])
    assert fixed.at(99) == [0.5, 0.5]


def test_rows_are_drawn_by_weight_and_each_place_by_itself():
    def drawn(weights, rows=4000):
        sampler = TaskSampler([10, 5], weights, rows=rows, rows_per_step=4, seed=3)
        assert len(sampler) == rows
        return list(sampler)

    even = drawn(TaskWeights([0.8, 0.2]))
    share = sum(row >= 10 for row in even) / len(even)
    assert share == pytest.approx(0.2, abs=0.03)
    assert set(even) == set(range(15))
    # Weights that change at step 500 change nothing before it.
    moved = TaskWeights([0.8, 0.2], history=[(498, [0.0, 1.0])])
    later = drawn(moved)
    assert later[:2000] == even[:2000] and min(later[2000:]) >= 10
    assert drawn(TaskWeights([0.8, 0.2]), rows=40) == even[:40]


def test_conflicting_gradients_are_projected_as_in_the_paper():
    """Algorithm 1 by hand: g1 = (1, 0), g2 = (-1, 1); g1 . g2 = -1, |g2|^2 = 2, |g1|^2 = 1."""
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    # g1 + 1/2 g2 = (1/2, 1/2); g2 + 1 g1 = (0, 1).
    torch.testing.assert_close(without_conflicts([one, two]), torch.tensor([0.5, 1.5]))
    # None that point the same way are changed, nor one alone, nor one that is 0.
    torch.testing.assert_close(without_conflicts([one, one + 1]), torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(without_conflicts([two]), two)
    torch.testing.assert_close(without_conflicts([one, 0 * one]), one)


def test_after_projection_two_tasks_do_not_lose_to_first_order():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        pair = list(torch.randn(2, 6, generator=generator))
        total = without_conflicts(pair, Random(0))
        assert all(float(torch.dot(total, gradient)) >= -1e-5 for gradient in pair)


def test_the_order_of_three_tasks_is_drawn():
    gradients = [torch.tensor([1.0, 0.2]), torch.tensor([-1.0, 0.4]), torch.tensor([-0.2, -1.0])]
    sums = {tuple(without_conflicts(gradients, Random(n)).tolist()) for n in range(20)}
    assert len(sums) > 1
    assert without_conflicts(gradients, Random(1)).equal(without_conflicts(gradients, Random(1)))
