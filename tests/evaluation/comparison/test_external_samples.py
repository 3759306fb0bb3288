"""Samples of other tools: every value is checked, and a file is taken whole or refused by lines."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from evaluation.comparison.external_samples import read_samples_file
from evaluation.comparison.inputs import gather_inputs
from evaluation.comparison.page_content import comparison_content
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


def runs_of(path, scorers=()):
    return read_samples_file(path).training_runs(scorers)


def test_a_plain_line_is_enough(tmp_path):
    found = runs_of(write(tmp_path / "s.jsonl", line()))
    assert [(run.method, run.seed, len(run.checkpoints)) for run in found] == [("m", "0", 1)]
    row = found[0].final.rows[0]
    assert row["prompt"] == [{"role": "user", "content": "Hi"}]
    assert row["finished"] is None and row["tokens"] is None  # unknown, and not claimed


def test_models_seeds_and_checkpoints_are_separate(tmp_path):
    rows = [line(model=m, seed=s, checkpoint=c) for m in "ab" for s in (0, 1) for c in (5, 10)]
    found = runs_of(write(tmp_path / "s.jsonl", *rows))
    assert [(r.method, r.seed) for r in found] == [("a", "0"), ("a", "1"), ("b", "0"), ("b", "1")]
    assert [checkpoint.step for checkpoint in found[0].checkpoints] == [5, 10]


def test_messages_scores_costs_and_log_probabilities(tmp_path):
    given = line(
        prompt=[{"role": "user", "content": "Hi"}],
        response=[{"role": "assistant", "content": "Hello"}],
        logprob=-2.0, reference_logprob=-3.5, scores={"helpful": 0.25}, costs={"tokens": 7},
    )  # fmt: skip
    run = runs_of(write(tmp_path / "s.jsonl", given))[0]
    assert run.final.kl == pytest.approx(1.5)
    assert run.scorers == ["helpful"] and run.final.mean("helpful") == 0.25
    assert run.final.costs["tokens"] == 7 and run.final.costs["steps"] is None


def test_missing_scores_are_made_by_the_comparisons_own_judges(tmp_path):
    path = write(tmp_path / "s.jsonl", line(), line(prompt="Ho", scores={"length": 99.0}))
    run = runs_of(path, [Length()])[0]
    assert [row["length"] for row in run.final.rows] == [5.0, 99.0]
    assert "length" in run.scorers


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{no json", "is not JSON"),
        ("[1]", "is a list"),
        ({"prompt": "Hi", "response": "x"}, "has no model; it has prompt, response"),
        ({"query": "Hi", "response": "x", "model": "m"}, "rename 'query'?"),
        (line(images=["1.jpg"]), "has images"),
        (line(prompt=3), "'prompt' is a number"),
        (line(prompt=[{"role": "user"}]), "'prompt' has null as content of turn 1"),
        (line(prompt=[{"role": "assistant", "content": "x"}]), "ends with the assistant's turn"),
        (line(response=[{"role": "user", "content": "thanks"}]), "'response' ends with the user's"),
        (line(response={"a": 1}), "'response' has a turn 1"),
        (line(logprob="low"), "'logprob' is text"),
        (line(logprob=0.5), "'logprob' is 0.5; a log-probability is 0 or less"),
        (line(reference_logprob=7), "'reference_logprob' is 7"),
        (line(logprob=float("nan")), "'logprob' is not a finite number"),
        (line(tokens=-4), "'tokens' is -4"),
        (line(tokens=2.5), "'tokens' is 2.5"),
        (line(finished="false"), "'finished' is text; write true or false"),
        (line(finished=1), "'finished' is a number"),
        (line(scores={"a": True}), "the score 'a' is true or false"),
        (line(scores={"a": "high"}), "the score 'a' is text"),
        (line(scores={"a": float("nan")}), "the score 'a' is not a finite number"),
        ('{"prompt": "Hi", "response": "x", "model": "m", "score": 10e400}', "not a finite"),
        (f'{{"prompt": "Hi", "response": "x", "model": "m", "score": {"9" * 5000}}}', "not a fin"),
        (line(score=1, scores={"score": 2}), "a 'score' and another one"),
        (line(scores={"response": 1.0}), "named 'response', which is a column"),
        (line(scores={"gold_win_rate": 1.0}), "'gold_win_rate'"),
        (line(scores=[1]), "'scores' is a list"),
        (line(costs={"tokens": -1}), "the cost 'tokens' is -1"),
        (line(costs={"tokens": "9"}), "the cost 'tokens' is text"),
        (line(costs={"tokens": float("nan")}), "not a finite"),
        (line(costs={"dollars": 1}), "costs are responses, tokens, steps, seconds"),
        (line(checkpoint="final"), "'checkpoint' is text"),
        (line(checkpoint=-1), "'checkpoint' is -1"),
        (line(seed=[0]), "'seed' is a list"),
        (line(model="x" * 300), "'model' has 300 characters"),
        ('{"a": ' * 2000 + "1" + "}" * 2000, "nested"),
    ],
)
def test_a_bad_line_refuses_the_file_by_its_number(tmp_path, bad, said):
    path = write(tmp_path / "s.jsonl", line(prompt="good"), bad)
    with pytest.raises(DataError, match=r"s\.jsonl, line 2") as caught:
        read_samples_file(path)
    assert said in str(caught.value) and "Nothing of" in str(caught.value)


def test_all_bad_lines_are_counted_and_the_first_are_shown(tmp_path):
    path = write(tmp_path / "s.jsonl", *[line(prompt=f"q{n}", tokens=-1) for n in range(9)])
    with pytest.raises(DataError, match=r"line 5[\s\S]*And 4 more"):
        read_samples_file(path)


def test_text_that_is_not_utf8_is_refused_by_its_line(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(json.dumps(line()).encode() + b'\n{"prompt": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"line 2: is not UTF-8"):
        read_samples_file(path)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(line()).encode() + b"\r\n")
    assert len(read_samples_file(path).samples) == 1


def test_the_same_prompt_twice_is_refused(tmp_path):
    path = write(tmp_path / "s.jsonl", line(), line(response="again"))
    with pytest.raises(DataError, match=r"line 2: .* to the prompt of line 1 again"):
        read_samples_file(path)


def test_costs_of_one_checkpoint_are_one(tmp_path):
    rows = [line(prompt=p, costs={"tokens": n}) for p, n in (("a", 1), ("b", 2))]
    with pytest.raises(DataError, match=r"line 2: has other costs .* than line 1"):
        read_samples_file(write(tmp_path / "s.jsonl", *rows))


def test_empty_responses_are_responses(tmp_path):
    assert runs_of(write(tmp_path / "s.jsonl", line(response="")))[0].final.rows


def test_an_empty_file_and_no_file(tmp_path):
    with pytest.raises(DataError, match="no samples"):
        read_samples_file(write(tmp_path / "s.jsonl"))
    with pytest.raises(DataError, match="There is no file"):
        read_samples_file(tmp_path / "none.jsonl")


def test_keys_that_are_not_read_are_named(tmp_path):
    found = read_samples_file(write(tmp_path / "s.jsonl", line(reward=1.5), line(prompt="b")))
    assert any("reward (1 rows)" in note and "'scores'" in note for note in found.notes)


def test_the_score_column_and_scores_by_name(tmp_path):
    found = runs_of(write(tmp_path / "s.jsonl", line(score=2, scores={"helpful": 1})))
    assert set(found[0].scorers) == {"score", "helpful"} and found[0].final.mean("score") == 2


def test_csv_and_parquet_are_read_as_json_lines_are(tmp_path):
    rows = [
        line(prompt=f"q{n}", score=n / 2, seed=0, tokens=n, finished=n != 1, logprob=-1.5,
             reference_logprob=-2.0)
        for n in range(4)
    ]  # fmt: skip
    expected = runs_of(write(tmp_path / "s.jsonl", *rows))
    pd.DataFrame(rows).to_csv(tmp_path / "s.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "s.parquet", index=False)
    for name in ("s.csv", "s.parquet"):
        found = runs_of(tmp_path / name)
        assert [run.final.rows for run in found] == [run.final.rows for run in expected], name
        assert [run.scorers for run in found] == [["score"]], name


def test_flat_columns_of_scores_and_costs(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text(
        "prompt,response,model,scores.kind,costs.tokens,scores.clear\na,x,m,1.5,7,\nb,y,m,2,7,3\n"
    )
    (run,) = runs_of(file)
    assert [row.get("kind") for row in run.final.rows] == [1.5, 2.0]
    assert [row.get("clear") for row in run.final.rows] == [None, 3.0]
    assert run.final.costs["tokens"] == 7


def test_text_cells_are_checked_as_well(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text("prompt,response,model,finished\na,x,m,yes\n")
    with pytest.raises(DataError, match="line 2: 'finished' is text"):
        read_samples_file(file)


def test_empty_cells_of_parquet_are_missing(tmp_path):
    rows = [line(prompt="a", score=1.0, tokens=3), line(prompt="b")]
    pd.DataFrame(rows).to_parquet(tmp_path / "s.parquet", index=False)
    (run,) = runs_of(tmp_path / "s.parquet")
    assert [row.get("score") for row in run.final.rows] == [1.0, None]
    assert [row["tokens"] for row in run.final.rows] == [3, None]


def test_a_repeated_prompt_is_taken_off_and_a_system_turn_is_read(tmp_path):
    whole = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [line(response=whole), line(prompt="Ho", system="Be brief.")]
    first, second = runs_of(write(tmp_path / "s.jsonl", *rows))[0].final.rows
    assert first["response"] == "Hello"
    assert second["prompt"][0] == {"role": "system", "content": "Be brief."}


def test_a_score_may_be_missing_in_any_row(tmp_path):
    rows = [line(prompt=f"{n}", scores={} if n == 0 else {"s": n}) for n in range(3)]
    assert runs_of(write(tmp_path / "s.jsonl", *rows))[0].scorers == ["s"]


def scored_rows(*models, **changes):
    return [
        {"prompt": f"q{n}", "response": f"{model} {n}", "model": model, "scores": {"gold": n}}
        | changes
        for model in models
        for n in range(4)
    ]


def test_files_of_one_name_keep_their_models_apart(tmp_path):
    files = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        file = tmp_path / str(number) / "samples.jsonl"
        write(file, *scored_rows("a", scores={"gold": float(number)}))
        files.append(file)
    inputs = gather_inputs(tmp_path, [], [*files, files[1]])
    assert [run.method for run in inputs.runs] == ["a", "a (samples)", "a (samples 2)"]
    assert not inputs.notes  # nothing was computed here


def test_a_score_that_a_file_calls_gold_is_not_the_world_s(tmp_path):
    file = tmp_path / "samples.jsonl"
    write(file, *scored_rows("a", "b"))
    inputs = gather_inputs(tmp_path, [], [file])
    content = comparison_content(inputs.runs, title="", judge="gold")
    assert "embedded world" not in json.dumps(content)


def test_one_prompt_at_the_end_is_refused_by_the_model_s_name(tmp_path):
    file = tmp_path / "samples.jsonl"
    rows = scored_rows("a", "b")
    write(file, *(row | {"checkpoint": number % 4} for number, row in enumerate(rows)))
    with pytest.raises(DataError, match=r"a, seed 0.* on 1 prompt.* the same checkpoint"):
        comparison_content(gather_inputs(tmp_path, [], [file]).runs, title="", judge="gold")


def test_a_score_whose_square_is_infinite_is_refused(tmp_path):
    file = tmp_path / "samples.jsonl"
    write(file, *scored_rows("a", scores={"gold": -1e308}))
    with pytest.raises(DataError, match="the score 'gold' is -1e\\+308; at most 1e\\+100"):
        read_samples_file(file)
