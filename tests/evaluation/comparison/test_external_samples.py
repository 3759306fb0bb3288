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
        ("{no json", "is not JSON"),
        ("[1]", "is a list, not an object"),
        ({"prompt": "Hi", "response": "x"}, "but no model"),
        (line(prompt=3), "'prompt' is a number, not a list of messages"),
        (line(prompt=[{"role": "user"}]), "has null as content of turn 1"),
        (
            line(
                response=[{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
            ),
            "has 2 messages as the response, the last by user",
        ),
        (line(response=[{"role": "user", "content": "thanks"}]), "the last by user"),
        (line(logprob="low"), "'logprob' is 'low'"),
        (line(logprob=0.5), "'logprob' is 0.5; the logarithm of a probability is at most 0"),
        (line(reference_logprob=50), "'reference_logprob' is 50; the logarithm"),
        (line(finished="false"), "'finished' is 'false', not true or false"),
        (line(finished=1), "'finished' is 1, not true or false"),
        (line(tokens=-4), "'tokens' is -4, which cannot be below 0"),
        (line(costs={"steps": -5}), "'steps' is -5, which cannot be below 0"),
        (line(costs={"steps": "many"}), "'steps' is 'many', not a finite number"),
        (line(costs={"steps": float("nan")}), "'steps' is nan, not a finite number"),
        (line(costs={"hours": 5}), "has the cost 'hours', which is none of responses, tokens"),
        (line(scores={"a": True}), "'a' is 'True', not a finite number"),
        (line(scores={"a": 10**400}), "'a' is inf, not a finite number"),
        (line(scores=[1]), "'scores' is a list, not an object"),
        (line(scores={"response": 1.0}), "has the score 'response'"),
        (line(scores={"logprob": 1.0}), "has the score 'logprob'"),
        (line(scores={"../../../ESC": 1.0}), "has the score '../../../ESC'"),
        (line(scores={"/tmp/ABS": 1.0}), "has the score '/tmp/ABS'"),
        (line(checkpoint="final"), "'checkpoint' is 'final'"),
        (line(checkpoint=-1), "'checkpoint' is -1"),
        (line(images=["1.jpg"]), "has images"),
    ],
)
def test_a_bad_line_refuses_the_file_by_its_number(tmp_path, bad, said):
    path = write(tmp_path / "s.jsonl", line(prompt="good"), bad)
    with pytest.raises(DataError, match=r"s\.jsonl, line 2") as caught:
        read_samples_file(path)
    assert said in str(caught.value)
    assert "Nothing of" in str(caught.value)


def test_files_are_read_as_people_save_them(tmp_path):
    rows = [line(prompt=f"{n}", response="x") for n in range(3)]
    (tmp_path / "mark.jsonl").write_bytes(
        b"\xef\xbb\xbf" + "".join(json.dumps(row) + "\n" for row in rows).encode()
    )
    (tmp_path / "list.json").write_text(json.dumps(rows))
    for name in ("mark.jsonl", "list.json"):
        assert len(read_samples_file(tmp_path / name)[0].final.rows) == 3


def test_a_repeated_prompt_is_taken_off_and_a_system_turn_is_read(tmp_path):
    whole = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [line(response=whole), line(prompt="Ho", system="Be brief.")]
    first, second = read_samples_file(write(tmp_path / "s.jsonl", *rows))[0].final.rows
    assert first["response"] == "Hello"
    assert second["prompt"][0] == {"role": "system", "content": "Be brief."}


def test_a_score_may_be_missing_in_any_row(tmp_path):
    rows = [line(prompt=f"{n}", scores={} if n == 0 else {"s": n}) for n in range(3)]
    assert read_samples_file(write(tmp_path / "s.jsonl", *rows))[0].scorers == ["s"]


def test_a_kl_far_below_0_is_pointed_out(tmp_path):
    def run(ratios):
        rows = [
            line(prompt=f"{n}", logprob=-6.0 + ratio, reference_logprob=-6.0)
            for n, ratio in enumerate(ratios)
        ]
        return read_samples_file(write(tmp_path / "s.jsonl", *rows))[0]

    assert "is -3.00 nats per response, and a KL is never below 0" in run([-3.0] * 20).problems[0]
    # A finite sample of a small KL may have a mean below 0.
    assert not run([0.5, -0.6] * 10).problems
    assert not run([1.0] * 20).problems


def test_the_same_prompt_twice_is_refused(tmp_path):
    path = write(tmp_path / "s.jsonl", line(), line(response="again"))
    with pytest.raises(DataError, match=r"line 2: .* to the prompt of line 1 again"):
        read_samples_file(path)


def test_empty_answers_are_answers(tmp_path):
    assert read_samples_file(write(tmp_path / "s.jsonl", line(response="")))[0].final.rows


def test_an_empty_file_and_no_file(tmp_path):
    with pytest.raises(DataError, match="no samples"):
        read_samples_file(write(tmp_path / "s.jsonl"))
    with pytest.raises(DataError, match="There is no file"):
        read_samples_file(tmp_path / "none.jsonl")
