"""Best of n: by hand, and by trying every subset."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from plumbline.statistics import best_of


def test_three_answers_by_hand():
    found = best_of(np.array([[2.0, 3.0, 1.0]]), np.array([[20.0, 60.0, 10.0]]), [1, 2, 3])
    # Of two: {10, 20} gives 20, {10, 60} and {20, 60} give 60.
    assert found.judging == pytest.approx([30, 140 / 3, 60])
    assert found.ranking == pytest.approx([2, 8 / 3, 3])
    assert found.kl == pytest.approx([0, math.log(2) - 1 / 2, math.log(3) - 2 / 3])


def test_it_is_the_mean_over_every_subset():
    random = np.random.default_rng(3)
    ranking, judging = random.normal(size=(2, 4, 6))
    found = best_of(ranking, judging, range(1, 7))
    for place, size in enumerate(range(1, 7)):
        values = [
            judging[prompt][max(subset, key=lambda n, p=prompt: ranking[p][n])]
            for prompt in range(4)
            for subset in itertools.combinations(range(6), size)
        ]
        assert found.judging[place] == pytest.approx(np.mean(values))


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="best of 3 cannot be selected from 2"):
        best_of(np.zeros((1, 2)), np.zeros((1, 2)), [3])
