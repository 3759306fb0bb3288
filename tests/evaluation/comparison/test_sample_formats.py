"""Files of AlpacaEval, MT-Bench and lm-evaluation-harness become samples."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from evaluation.comparison.external_samples import read_samples_file
from evaluation.comparison.sample_formats import SAMPLE_FORMATS, Conversion, format_of
from plumbline.commands.app import app
from plumbline.errors import DataError


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def alpaca_output(n, generator="ours"):
    return {"instruction": f"Instruction {n}", "output": f"{generator} {n}",
            "generator": generator, "dataset": "helpful_base", "datasplit": "eval"}  # fmt: skip


def annotation(n, preference):
    return {
        "instruction": f"Instruction {n}", "output_1": f"reference {n}", "generator_1": "gpt4",
        "output_2": f"ours {n}", "generator_2": "ours", "dataset": "koala",
        "annotator": "weighted_judge", "preference": preference, "raw_completion": {"text": "m"},
    }  # fmt: skip


QUESTION = {"question_id": 81, "category": "writing", "turns": ["Write a post.", "Rewrite it."]}
ANSWER = {"question_id": 81, "answer_id": "x", "model_id": "ours", "tstamp": 1.0,
          "choices": [{"index": 0, "turns": ["A post.", "Another post."]}]}  # fmt: skip


def test_every_format_is_recognized_by_its_own_marks():
    examples = {
        "plumbline": {"prompt": "a", "response": "b", "model": "m"},
        "alpaca_eval": alpaca_output(0),
        "alpaca_eval_annotations": annotation(0, 1.0),
        "mt_bench": ANSWER,
        "lm_eval": {"doc_id": 0, "arguments": [], "resps": []},
    }
    assert set(examples) == set(SAMPLE_FORMATS)
    for name, example in examples.items():
        assert format_of(example).name == name


def test_alpaca_eval_outputs(tmp_path):
    path = tmp_path / "model_outputs.json"
    path.write_text(json.dumps([alpaca_output(0), alpaca_output(1) | {"input": "More."}]))
    samples = read_samples_file(path).samples
    assert [sample.model for sample in samples] == ["ours", "ours"]
    assert samples[1].row["prompt"][0]["content"] == "Instruction 1\n\nMore."
    assert samples[0].row["subset"] == "helpful_base" and samples[0].row["response"] == "ours 0"


def test_alpaca_eval_annotations_win_as_the_preference_says(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([annotation(0, 1.0), annotation(1, 1.99), annotation(2, None)]))
    found = read_samples_file(path)
    scores = {(s.model, s.row["response"]): s.scores.get("weighted_judge") for s in found.samples}
    assert scores["ours", "ours 0"] == 0 < scores["gpt4", "reference 0"] == 0.5
    assert scores["ours", "ours 1"] == pytest.approx(0.99) and scores["ours", "ours 2"] is None
    assert any("'gpt4'" in note and "--baseline" in note for note in found.notes)
    path.write_text(json.dumps([annotation(0, 3)]))
    with pytest.raises(DataError, match="the preference is 3, not from 1 to 2"):
        read_samples_file(path)


def test_mt_bench_answers_with_questions_and_judgments(tmp_path):
    write(tmp_path / "mt_bench" / "question.jsonl", [QUESTION])
    answers = write(tmp_path / "mt_bench" / "model_answer" / "ours.jsonl", [ANSWER])
    judged = [
        {"question_id": 81, "model": "ours", "judge": ["gpt-4", "single-v1"],
         "score": 8, "turn": 1},
        {"question_id": 81, "model": "ours", "judge": ["gpt-4", "single-v1-multi-turn"],
         "score": 6.5, "turn": 2},
    ]  # fmt: skip
    judgments = write(tmp_path / "gpt-4_single.jsonl", judged)
    samples = read_samples_file(answers, Conversion(answers, judgments_file=judgments)).samples
    assert [s.scores for s in samples] == [{"gpt-4": 8}, {"gpt-4": 6.5}]
    assert [len(s.row["prompt"]) for s in samples] == [1, 2]
    assert [s.row["subset"] for s in samples] == ["writing, turn 1", "writing, turn 2"]
    assert samples[1].row["response"] == "Another post."


def test_mt_bench_without_questions_names_the_remedy(tmp_path):
    answers = write(tmp_path / "a" / "b" / "ours.jsonl", [ANSWER])
    with pytest.raises(DataError, match=r"convert-samples .* --questions question.jsonl"):
        read_samples_file(answers)
    write(tmp_path / "a" / "question.jsonl", [QUESTION | {"question_id": 99}])
    with pytest.raises(DataError, match=r"line 1: .*question 81 is not in the file of questions"):
        read_samples_file(answers)


def test_real_questions_of_mt_bench_are_read(tmp_path, real_file):
    questions = real_file("mtbench/question.jsonl")
    answers = [
        ANSWER | {"question_id": json.loads(line)["question_id"]}
        for line in questions.read_text().splitlines()
    ]
    path = write(tmp_path / "ours.jsonl", answers)
    samples = read_samples_file(path, Conversion(path, questions_file=questions)).samples
    assert len(samples) == 2 * len(answers) == 160


def test_lm_eval_s_own_files_are_read(tmp_path):
    tracker_module = pytest.importorskip("lm_eval.loggers.evaluation_tracker")
    tracker = tracker_module.EvaluationTracker(output_path=str(tmp_path))
    tracker.general_config_tracker.model_name_sanitized = "org__model"
    tracker.date_id = "2026-01-01T00-00-00.000000"

    def sample(doc_id, filter_name, filtered, match):
        return {
            "doc_id": doc_id, "doc": {"question": "q"}, "target": "7",
            "arguments": [(f"Question {doc_id}\nAnswer:", {"until": ["\n"]})],
            "resps": [["It is 7."]], "filtered_resps": [filtered], "filter": filter_name,
            "metrics": ["exact_match"], "doc_hash": "a", "prompt_hash": "b", "target_hash": "c",
            "exact_match": match,
        }  # fmt: skip

    rows = [sample(n, f, x, m) for n in (0, 1) for f, x, m in
            (("strict-match", "[invalid]", 0.0), ("flexible-extract", "7", 1.0))]  # fmt: skip
    tracker.save_results_samples("gsm8k", rows)
    (path,) = tmp_path.rglob("samples_gsm8k_*.jsonl")
    found = read_samples_file(path)
    assert len(found.samples) == 2  # one per document, with the scores of both filters
    sample_0 = found.samples[0]
    assert sample_0.model == "org__model" and sample_0.row["subset"] == "gsm8k"
    assert sample_0.row["prompt"][0]["content"] == "Question 0\nAnswer:"
    assert sample_0.row["response"] == "It is 7."
    assert sample_0.scores == {
        "exact_match (strict-match)": 0.0, "exact_match (flexible-extract)": 1.0,
    }  # fmt: skip


def test_lm_eval_s_choices_are_the_most_probable_continuation(tmp_path):
    line = {
        "doc_id": 3, "doc": {}, "target": "1", "filter": "none", "metrics": ["acc"], "acc": 1.0,
        "arguments": {"gen_args_0": {"arg_0": "Sky?", "arg_1": " green"},
                      "gen_args_1": {"arg_0": "Sky?", "arg_1": " blue"}},
        "resps": [[["-4.5", "False"]], [["-0.5", "True"]]],
        "filtered_resps": [["-4.5", "False"], ["-0.5", "True"]],
    }  # fmt: skip
    path = write(tmp_path / "model" / "samples_sky_2026.jsonl", [line])
    (sample,) = read_samples_file(path).samples
    assert sample.row["response"] == " blue" and sample.scores == {"acc": 1.0}


def test_lm_eval_s_chat_prompts_are_messages(tmp_path):
    chat = json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}])
    line = {
        "doc_id": 0, "arguments": {"gen_args_0": {"arg_0": [chat], "arg_1": {}}},
        "resps": [["Hello"]], "filter": "none", "exact_match": 0.0,
    }  # fmt: skip
    path = write(tmp_path / "model" / "samples_chat_2026.jsonl", [line])
    (sample,) = read_samples_file(path).samples
    assert [message["role"] for message in sample.row["prompt"]] == ["system", "user"]


@pytest.mark.parametrize(
    "line",
    [
        {"doc_id": 0, "arguments": {}, "resps": []},
        {"doc_id": 0, "arguments": [["a", "b"]], "resps": [[{"x": 1}]]},
        {"question_id": 81, "model_id": "m", "choices": []},
        {"question_id": 81, "model_id": "m", "choices": [{"turns": 3}]},
        {"instruction": None, "output": None, "generator": None},
        annotation(0, "first"),
    ],
)
def test_broken_lines_are_refused_by_their_number(tmp_path, line):
    write(tmp_path / "question.jsonl", [QUESTION])
    path = write(tmp_path / "s.jsonl", [line])
    with pytest.raises(DataError, match=r"s\.jsonl, line 1"):
        read_samples_file(path)


def test_the_converter_writes_what_compare_reads(tmp_path):
    for model in ("ours", "theirs"):
        path = tmp_path / f"{model}.json"
        path.write_text(json.dumps([alpaca_output(n, model) for n in range(5)]))
    out = tmp_path / "samples.jsonl"
    command = ["convert-samples", str(tmp_path / "ours.json"), str(tmp_path / "theirs.json")]
    result = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "10 samples of ours, theirs" in " ".join(result.output.split())
    again = read_samples_file(out).samples
    first = read_samples_file(tmp_path / "ours.json").samples
    assert again[:5] == first
    assert CliRunner().invoke(app, [*command, "--out", str(out)]).exit_code != 0
