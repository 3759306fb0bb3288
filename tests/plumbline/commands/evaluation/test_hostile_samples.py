"""Files of samples of other tools, hostile and broken ones, through `plumbline compare`."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from plumbline.commands.app import app
from plumbline.errors import DataError


def line(n, model="m", **changes):
    return {
        "prompt": f"question {n}", "response": f"{model} says {n}", "model": model,
        "scores": {"quality": (n * 7 + len(model)) % 5 / 4},
    } | changes  # fmt: skip


def write(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def compare(path, *options):
    out = path.parent / "report"
    command = ["compare", "--samples", str(path), "--out", str(out), *options]
    return CliRunner().invoke(app, command), out


def report_of(path, *options):
    result, out = compare(path, *options)
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split()), out


def flags_of(out):
    return [flag["text"] for flag in json.loads((out / "summary.json").read_text())["flags"]]


def test_case_16_the_baseline_keeps_its_own_name(tmp_path):
    rows = [line(n, model) for model in ("start", "dpo", "ppo") for n in range(20)]
    text, out = report_of(write(tmp_path / "s.jsonl", rows), "--baseline", "start")
    for shown in (text, (out / "report.md").read_text(), (out / "report.html").read_text()):
        assert "start" in shown and "SFT" not in shown


def test_case_h_02_a_method_named_sft_is_one_of_the_methods(tmp_path):
    rows = [line(n, model) for model in ("sft", "dpo", "ppo") for n in range(20)]
    path = write(tmp_path / "s.jsonl", rows)
    for options in ([], ["--baseline", "ppo"]):
        _, out = report_of(path, *options)
        summary = json.loads((out / "summary.json").read_text())
        expected = {"sft", "dpo", "ppo"} - set(options)
        assert set(summary["methods"]) == expected
        results = (out / "report.md").read_text().split("## Results")[1].split("##")[0]
        assert all(f"| {name} |" in results for name in expected)


@pytest.mark.parametrize("name", ["baseline", "sft", "None", "reference", "start", "a/b", "0"])
def test_no_method_s_name_is_reserved(tmp_path, name):
    rows = [line(n, model) for model in (name, "other", "first") for n in range(8)]
    _, out = report_of(write(tmp_path / "s.jsonl", rows), "--baseline", "first")
    assert set(json.loads((out / "summary.json").read_text())["methods"]) == {name, "other"}


def test_case_h_12_a_score_that_is_missing_costs_its_prompt_in_any_row(tmp_path):
    for hole in (0, 7):
        folder = tmp_path / str(hole)
        folder.mkdir()
        rows = [line(n, model) for model in "AB" for n in range(20)]
        del rows[20 + hole]["scores"]
        _, out = report_of(write(folder / "s.jsonl", rows))
        summary = json.loads((out / "summary.json").read_text())
        assert summary["design"]["prompts"] == 19 and set(summary["methods"]) == {"A", "B"}
        assert any("1 of 20 prompts have a response without quality" in f for f in flags_of(out))


def test_a_model_with_too_few_scores_is_left_out_aloud(tmp_path):
    rows = [line(n, model) for model in "ABC" for n in range(20)]
    for row in rows[40:55]:
        del row["scores"]
    _, out = report_of(write(tmp_path / "s.jsonl", rows))
    assert any("C, seed 0 is left out" in f and "15 of its 20" in f for f in flags_of(out))


def test_case_16_a_kl_far_below_zero_is_flagged_and_not_used(tmp_path):
    rows = [
        line(n, model, checkpoint=c, logprob=-9.0, reference_logprob=-6.0 - c)
        for model in "AB" for c in (0, 1) for n in range(20)
    ]  # fmt: skip
    _, out = report_of(write(tmp_path / "s.jsonl", rows))
    assert any("is -3.00 nats per response" in f and "never below 0" in f for f in flags_of(out))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["design"]["budget"] is None and summary["frontier"] == []


def test_a_kl_that_is_below_zero_by_chance_is_not_flagged(tmp_path):
    rows = [
        line(n, model, logprob=-9.0, reference_logprob=-9.0 + (-1) ** n * 0.9 + 0.05)
        for model in "AB" for n in range(20)
    ]  # fmt: skip
    _, out = report_of(write(tmp_path / "s.jsonl", rows))
    assert not any("below 0" in f for f in flags_of(out))


def test_log_probabilities_of_some_responses_only_are_said(tmp_path):
    rows = [line(n, m, logprob=-9.0, reference_logprob=-9.5) for m in "AB" for n in range(20)]
    del rows[3]["logprob"]
    _, out = report_of(write(tmp_path / "s.jsonl", rows))
    assert any("19 of 20 responses have a logprob and 20 a reference" in f for f in flags_of(out))


def test_nothing_but_the_baseline_is_said(tmp_path):
    path = write(tmp_path / "s.jsonl", [line(n) for n in range(5)])
    result, _ = compare(path, "--baseline", "m")
    assert isinstance(result.exception, DataError)
    assert "There is nothing but the baseline 'm'" in str(result.exception)


@pytest.mark.parametrize(
    "score", ["../../../ESC", "/tmp/ABSOLUTE", "..\\x", "a:b", "CON ", "é" * 90]
)
def test_the_name_of_a_score_is_never_a_path(tmp_path, score):
    folder = tmp_path / "one" / "two" / "three"
    folder.mkdir(parents=True)
    rows = [
        line(n, model, scores={score: n % 3}, logprob=-1, reference_logprob=-2, checkpoint=c)
        for model in "AB" for c in (0, 1) for n in range(6)
    ]  # fmt: skip
    _, out = report_of(write(folder / "s.jsonl", rows), "--judge", score)
    inside = {file for file in out.rglob("*") if file.is_file()}
    assert {file for file in tmp_path.rglob("*") if file.is_file()} - inside == {folder / "s.jsonl"}
    names = [file.name for file in (out / "plots").iterdir()]
    assert names and all(name.isascii() and len(name) <= 100 for name in names)


def test_cells_of_csv_are_no_formulas_and_report_md_shows_control_characters(tmp_path):
    nasty = "\u001b[31m\u0007\u0000\u202e<img src=x>"
    rows = [
        line(n, model) for model in ("=1+1", "+2", "\u001b[2J\u0000<b>\\", "base") for n in range(4)
    ]
    rows += [line(n, "@x", response=nasty) for n in range(4)]
    text, out = report_of(write(tmp_path / "s.jsonl", rows), "--baseline", "base")
    for file in (out / "tables").glob("*.csv"):
        for cells in csv.reader(file.open()):
            for cell in cells:
                assert not cell.startswith(("=", "@")), (file.name, cell)
                assert not cell.startswith("+") or cell.lstrip("+").replace(".", "").isdigit()
    for shown in (text, (out / "report.md").read_text()):
        assert not set(shown) & set("\u001b\u0007\u0000\u202e")
    assert "\\\\u001b" in (out / "report.md").read_text()
    assert "<img src=x>" not in (out / "report.html").read_text()
    for file in (out / "plots").iterdir():
        ElementTree.parse(file)  # control characters are no XML


def test_two_models_whose_names_differ_in_signs_have_both_their_files(tmp_path):
    rows = [
        line(n, "m", scores={"a?": n, "a!": -n}, logprob=-1, reference_logprob=-2) for n in range(4)
    ]
    rows += [row | {"model": "o"} for row in rows]
    _, out = report_of(write(tmp_path / "s.jsonl", rows), "--judge", "a?")
    assert len([f for f in (out / "plots").iterdir() if "against-kl" in f.name]) == 2


def test_samples_of_one_checkpoint_bring_no_warnings(tmp_path):
    rows = [
        line(n, m, logprob=-3.0, reference_logprob=-4.0) for m in ("ours", "theirs", "start")
        for n in range(20)
    ]  # fmt: skip
    _, out = report_of(write(tmp_path / "s.jsonl", rows), "--baseline", "start")
    flags = json.loads((out / "summary.json").read_text())["flags"]
    assert [flag["level"] for flag in flags] == ["note"]
    assert "compared at the end of training" in flags[0]["text"]
