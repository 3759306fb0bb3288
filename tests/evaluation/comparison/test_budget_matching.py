"""Matched budgets: the checkpoint that stands for a training, and interpolation at equal KL."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.comparison.budget_matching import (
    BudgetConfig,
    match_budget,
    prompts_of_all_checkpoints,
    resolve_budget,
)
from plumbline.errors import ConfigError


def test_the_limit_is_the_most_that_every_training_reached(make_training):
    trained = [make_training("dpo", kls=(0, 1, 2)), make_training("ppo", kls=(0, 1, 9))]
    budget = resolve_budget(trained, BudgetConfig())
    assert budget is not None and budget.limit == pytest.approx(2) and budget.by == "kl"


def test_scores_are_interpolated_by_the_root_of_kl(make_training):
    # √KL is 0, 1, 2 at the looks; KL 2.25 has √KL 1.5, half way between the last two.
    one = make_training("ppo")
    budget = resolve_budget([one], BudgetConfig(limit=2.25))
    place = match_budget(one, budget)
    identities = [row["prompt_id"] for row in one.final.rows]
    scores = place.scores("gold", identities)
    assert place.share == pytest.approx(0.5)
    assert scores.mean() == pytest.approx(0.5 + 0.75)  # mean of the base 0.5, gains 0.5 and 1.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.floats(0.01, 4.0))
def test_interpolation_stays_between_its_looks(make_training, limit):
    one = make_training("ppo")
    place = match_budget(one, resolve_budget([one], BudgetConfig(limit=limit)))
    identities = [row["prompt_id"] for row in one.final.rows]
    found = place.scores("gold", identities)
    sides = [[float(row["gold"]) for row in look.rows] for look in (place.before, place.after)]
    assert np.all(found >= np.min(sides, axis=0) - 1e-9)
    assert np.all(found <= np.max(sides, axis=0) + 1e-9)


def test_trainings_that_hardly_moved_meet_at_their_start(make_training):
    # Where one never left the baseline, its KL is rounding, and so is that of another's start.
    still, moved = make_training("dpo", kls=(0, 1e-7, 4e-7)), make_training("ppo", kls=(2e-6, 1, 2))
    budget = resolve_budget([still, moved], BudgetConfig())
    assert budget is not None and budget.limit == pytest.approx(4e-7, rel=1e-3)
    place = match_budget(moved, budget)
    assert place is not None and place.nearest is moved.checkpoints[0]


def test_a_training_that_never_moves_so_far_is_not_matched(make_training):
    one = make_training("ppo")
    assert match_budget(one, resolve_budget([one], BudgetConfig(limit=5.0))) is None


@pytest.mark.parametrize(
    ("by", "limit", "checkpoint"),
    [("steps", 10, 10), ("steps", 19, 10), ("seconds", 10, 20), ("responses", 199, 10)],
)
def test_a_cost_takes_the_last_checkpoint_within_it(make_training, by, limit, checkpoint):
    one = make_training("ppo")
    place = match_budget(one, resolve_budget([one], BudgetConfig(by=by, limit=limit)))
    assert place.nearest.step == checkpoint


def test_a_cost_below_the_first_checkpoint_matches_nothing(make_training):
    one = make_training("ppo")
    assert match_budget(one, resolve_budget([one], BudgetConfig(by="steps", limit=9))) is None


def test_an_unknown_cost_is_refused_where_a_limit_was_set(make_training):
    one = make_training("ppo")
    for look in one.checkpoints:
        look.costs.pop("tokens")
    assert resolve_budget([one], BudgetConfig(by="tokens")) is None
    with pytest.raises(ConfigError, match="not known of ppo, seed 0"):
        resolve_budget([one], BudgetConfig(by="tokens", limit=5))


def test_prompts_of_all_looks(make_training):
    one = make_training("ppo")
    one.checkpoints[1].rows.pop(3)
    identities = [row["prompt_id"] for row in one.final.rows]
    assert prompts_of_all_checkpoints([one], identities) == [*identities[:3], *identities[4:]]
