"""Warnings of a gamed reward: each on metrics that show it, and silent on those that do not."""

from __future__ import annotations

import pytest

from rl.config import GuardConfig
from rl.reward_hacking import repetition, reward_hacking_warnings

CONFIG = GuardConfig(window=2)
CALM = {"score": 1.0, "tokens": 20.0, "entropy": 2.0, "repetition": 0.05, "watched/gold": 0.5}


def history(**last):
    return [CALM, CALM, CALM | last, CALM | last]


def test_repetition_by_hand():
    # 4-grams of 1 2 3 4 1 2 3 4: 1234, 2341, 3412, 4123, 1234. One of five came before.
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repetition([7] * 10) == pytest.approx(6 / 7)
    assert repetition([1, 2, 3]) == 0.0
    assert repetition([1, 1, 2, 1, 1], n=2) == pytest.approx(1 / 4)
    # Only the policy's own: 12 and 23 before the other's words, 12 and 23 behind them.
    policy_mask = [True] * 3 + [False] * 4 + [True] * 3
    assert repetition([1, 2, 3, 9, 9, 9, 9, 1, 2, 3], policy_mask, n=2) == pytest.approx(1 / 2)
    assert repetition([1, 2, 3, 9, 9, 9, 9, 9, 2, 3], policy_mask, n=2) == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("name", "beyond", "within"),
    [
        ("length", {"tokens": 41.0}, {"tokens": 39.0}),
        ("length", {"tokens": 9.0}, {"tokens": 11.0}),
        ("repetition", {"repetition": 0.26}, {"repetition": 0.24}),
        ("entropy", {"entropy": 0.49}, {"entropy": 0.51}),
        ("watched/gold", {"score": 2.0, "watched/gold": 0.4}, {"score": 2.0, "watched/gold": 0.6}),
        ("watched/gold", {"score": 2.0, "watched/gold": 0.4}, {"score": 0.9, "watched/gold": 0.4}),
    ],
)
def test_each_warning_shows_beyond_its_limit_and_not_within(name, beyond, within):
    assert set(reward_hacking_warnings(history(**beyond), CONFIG)) == {name}
    assert reward_hacking_warnings(history(**within), CONFIG) == {}


def test_the_sentence_has_the_numbers():
    said = reward_hacking_warnings(history(score=2.0, **{"watched/gold": 0.25}), CONFIG)[
        "watched/gold"
    ]
    assert "from 1.00 to 2.00" in said
    assert "from 0.50 to 0.25" in said


def test_nothing_is_compared_before_two_windows_are_there():
    assert reward_hacking_warnings(history(tokens=100.0)[:3], CONFIG) == {}


def test_means_of_the_first_and_the_last_window_are_compared():
    lines = [CALM | {"tokens": n} for n in (10.0, 30.0, 500.0, 30.0, 60.0)]
    assert (
        "45 tokens, 2.2 times as many as the 20" in reward_hacking_warnings(lines, CONFIG)["length"]
    )


def test_a_round_that_nothing_was_learnt_from_has_fewer_metrics():
    """Where every response was rejected there is no entropy; other warnings are still given."""
    bare = {name: value for name, value in CALM.items() if name != "entropy"}
    assert set(reward_hacking_warnings([bare, CALM, CALM, CALM | {"tokens": 100.0}], CONFIG)) == {
        "length"
    }
    assert reward_hacking_warnings([CALM, CALM, CALM, bare], CONFIG) == {}
    # And what one round has not is compared by those that have it.
    collapsed = CALM | {"entropy": 0.1}
    assert set(reward_hacking_warnings([bare, CALM, bare, collapsed], CONFIG)) == {"entropy"}
