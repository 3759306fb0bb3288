"""Samples of other tools: taken whole, or refused with line numbers."""

from __future__ import annotations

import json

import pytest

from evaluation.comparison.external_samples import read_samples_file
from plumbline.errors import DataError


class Length:
    name = "length"

    def score(self, prompts, responses):
        return [float(len(response)) for response in responses]


def write(path, *rows):
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return path


def line(**changes):
    return {"prompt": "Hi", "response": "Hello", "model": "m"} | changes


def test_a_plain_line_is_enough(tmp_path):
    found = read_samples_file(write(tmp_path / "s.jsonl", line()))
    assert [(one.method, one.seed, len(one.checkpoints)) for one in found] == [("m", "0", 1)]
    assert found[0].final.rows[0]["prompt"] == [{"role": "user", "content": "Hi"}]


def test_models_seeds_and_checkpoints_are_told_apart(tmp_path):
    rows = [line(model=m, seed=s, checkpoint=c) for m in "ab" for s in (0, 1) for c in (5, 10)]
    found = read_samples_file(write(tmp_path / "s.jsonl", *rows))
    assert [(o.method, o.seed) for o in found] == [("a", "0"), ("a", "1"), ("b", "0"), ("b", "1")]
    assert [checkpoint.step for checkpoint in found[0].checkpoints] == [5, 10]


def test_messages_scores_costs_and_log_probabilities(tmp_path):
    given = line(
        prompt=[{"role": "user", "content": "Hi"}],
        response=[{"role": "assistant", "content": "Hello"}],
        logprob=-2.0, reference_logprob=-3.5, scores={"helpful": 0.25}, costs={"tokens": 7},
    )  # fmt: skip
    one = read_samples_file(write(tmp_path / "s.jsonl", given))[0]
    assert one.final.kl == pytest.approx(1.5)
    assert one.scorers == ["helpful"] and one.final.mean("helpful") == 0.25
    assert one.final.costs["tokens"] == 7 and one.final.costs["steps"] is None


def test_missing_scores_are_made_by_the_comparisons_own_judges(tmp_path):
    path = write(tmp_path / "s.jsonl", line(), line(prompt="Ho", scores={"length": 99.0}))
    one = read_samples_file(path, [Length()])[0]
    assert [row["length"] for row in one.final.rows] == [5.0, 99.0]
    assert "length" in one.scorers


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{no json", "no JSON"),
        ("[1]", "no JSON object"),
        ({"prompt": "Hi", "response": "x"}, "no 'model'"),
        (line(prompt=3), "neither a text nor a list of messages"),
        (line(prompt=[{"role": "user"}]), "neither a text nor a list of messages"),
        (line(logprob="low"), "'logprob' is 'low'"),
        (line(scores={"a": True}), "'a' is True"),
        (line(scores=[1]), "'scores' must be an object"),
        (line(checkpoint="final"), "'checkpoint' is 'final'"),
    ],
)
def test_a_bad_line_refuses_the_file_by_its_number(tmp_path, bad, said):
    path = write(tmp_path / "s.jsonl", line(prompt="good"), bad)
    with pytest.raises(DataError, match=r"s\.jsonl, line 2") as caught:
        read_samples_file(path)
    assert said in str(caught.value) and "Nothing of" in str(caught.value)


def test_the_same_prompt_twice_is_refused(tmp_path):
    path = write(tmp_path / "s.jsonl", line(), line(response="again"))
    with pytest.raises(DataError, match=r"line 2: .* in line 1 already"):
        read_samples_file(path)


def test_empty_answers_are_answers(tmp_path):
    assert read_samples_file(write(tmp_path / "s.jsonl", line(response="")))[0].final.rows


def test_an_empty_file_and_no_file(tmp_path):
    with pytest.raises(DataError, match="no samples"):
        read_samples_file(write(tmp_path / "s.jsonl"))
    with pytest.raises(DataError, match="There is no file"):
        read_samples_file(tmp_path / "none.jsonl")
