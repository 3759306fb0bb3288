"""What may be compared, and what is refused or flagged instead."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from evaluation.comparison.comparability import check_comparability
from evaluation.comparison.training_runs import CheckpointEval
from plumbline.errors import DataError


def texts(checked) -> str:
    return "\n".join(flag.text for flag in checked.flags)


def test_same_terms_need_no_flag(make_training):
    checked = check_comparability([make_training("dpo"), make_training("ppo")], "gold")
    assert not checked.flags and len(checked.prompts) == 12 and checked.has_comparable_kl


def test_different_prompts_are_refused_with_counts(make_training):
    with pytest.raises(
        DataError, match=r"8 of 12 prompts have responses by all .*dpo, seed 0 12, ppo, seed 0 8"
    ):
        check_comparability([make_training("dpo"), make_training("ppo", prompts=8)], "gold")


def test_shared_prompts_are_used_where_that_is_asked_for(make_training):
    both = [make_training("dpo"), make_training("ppo", prompts=8)]
    checked = check_comparability(both, "gold", common_prompts=True)
    assert len(checked.prompts) == 8
    assert all(len(look.rows) == 8 for one in checked.runs for look in one.checkpoints)
    assert "only these are compared" in texts(checked)


def test_looks_on_fewer_prompts_are_kept_as_they_are(make_training):
    one = make_training("dpo")
    early = CheckpointEval(10, one.checkpoints[1].rows[:5], {})
    fewer = replace(one, checkpoints=[one.checkpoints[0], early, one.checkpoints[2]])
    checked = check_comparability([fewer], "gold")
    assert [len(look.rows) for look in checked.runs[0].checkpoints] == [12, 5, 12]


def test_other_judges_are_refused(make_training):
    both = [
        make_training("dpo", terms={"judge RewardModelScorer": "a"}),
        make_training("ppo", terms={"judge RewardModelScorer": "b"}),
    ]
    with pytest.raises(DataError, match="different judges"):
        check_comparability(both, "gold", allowed=["reference"])


def test_another_reference_is_refused_unless_allowed(make_training):
    both = [make_training("dpo"), make_training("ppo", terms={"reference": "policy-2"})]
    with pytest.raises(DataError, match="--allow reference"):
        check_comparability(both, "gold")
    assert "not to the same policy" in texts(
        check_comparability(both, "gold", allowed=["reference"])
    )


def test_another_tokenizer_is_flagged_and_kl_withheld(make_training):
    both = [
        make_training("dpo", terms={"tokenizer": "a"}),
        make_training("ppo", terms={"tokenizer": "b"}),
    ]
    checked = check_comparability(both, "gold")
    assert not checked.has_comparable_kl and "tokenizer" in texts(checked)


def test_a_diverged_training_is_left_out_aloud(make_training):
    lost = make_training("ppo", seed=1, problems=("diverged: loss is no finite number at step 3",))
    rows = [dict(row, gold=math.nan) for row in lost.final.rows]
    lost = replace(lost, checkpoints=[*lost.checkpoints[:-1], CheckpointEval(20, rows)])
    checked = check_comparability([make_training("ppo"), lost], "gold")
    assert [one.seed for one in checked.runs] == ["0"]
    assert [flag.level for flag in checked.flags] == ["refused"]
    assert "ppo, seed 1 is left out" in texts(checked) and "step 3" in texts(checked)


def test_nothing_finite_is_nothing_to_compare(make_training):
    with pytest.raises(DataError, match="nothing to compare"):
        check_comparability([make_training("ppo")], "kindness")


def test_missing_checkpoints_and_seeds_are_flagged(make_training):
    short = make_training("ppo", seed=1, gains=(0.0, 1.0), kls=(0.0, 4.0))
    checked = check_comparability([make_training("ppo"), short, make_training("dpo")], "gold")
    assert "ppo, seed 1 has 2 checkpoints where another seed of ppo has 3" in texts(checked)
    assert "different numbers of seeds: ppo 2, dpo 1" in texts(checked)


def test_two_answers_to_one_prompt_are_refused(make_training):
    one = make_training("ppo")
    twice = replace(one, checkpoints=[CheckpointEval(0, [*one.final.rows, one.final.rows[0]])])
    with pytest.raises(DataError, match="more than once"):
        check_comparability([twice], "gold")
