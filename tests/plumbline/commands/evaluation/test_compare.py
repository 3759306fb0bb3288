"""`plumbline compare`, as it is given on a command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from evaluation.comparison.inputs import gather_inputs
from plumbline.commands.app import app
from plumbline.errors import ArtifactError, ConfigError, DataError

MODELS = {"start": 0.0, "ours": 0.6, "theirs": 0.1}


@pytest.fixture
def samples(tmp_path):
    """Three models, three seeds, two checkpoints; ours is truly better."""
    path = tmp_path / "samples.jsonl"
    with path.open("w") as lines:
        for model, gain in MODELS.items():
            for seed in range(3):
                for checkpoint in (0, 10):
                    for n in range(30):
                        jitter = ((n * 7 + seed * 5 + len(model)) % 11) / 50
                        moved = gain * checkpoint / 10
                        row = {
                            "prompt": f"question {n}", "response": f"{model} {seed} says {n}",
                            "model": model, "seed": seed, "checkpoint": checkpoint,
                            "scores": {"quality": n / 30 + moved + jitter},
                            "logprob": -5.0, "reference_logprob": -5.0 - 2 * moved,
                        }  # fmt: skip
                        lines.write(json.dumps(row) + "\n")
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_samples_of_other_tools_make_a_whole_report(samples, tmp_path):
    out = tmp_path / "report"
    result = run("--samples", samples, "--baseline", "start", "--out", out)
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "At the end of training, ours is significantly better than theirs" in text
    assert "The judge is quality" in text
    for name in ("report.html", "report.md", "summary.json"):
        assert (out / name).stat().st_size > 500
    summary = json.loads((out / "summary.json").read_text())
    final = next(row for row in summary["contrasts"] if row["at"] == "final")
    assert final["low"] < 0.5 < final["high"]
    assert set(summary["methods"]) == {"ours", "theirs"}


def test_samples_of_single_models_are_no_methods_with_seeds(tmp_path):
    rows = [
        {"prompt": f"Thing {n}?", "response": f"It is {n}.", "model": model, "score": n / 30 + more}
        for n in range(30)
        for model, more in (("mine", (n % 3) / 9), ("theirs", 0))
    ]
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("--samples", file, "--budget", "none", "--out", tmp_path / "page").exit_code == 0
    text = (tmp_path / "page" / "report.md").read_text()
    assert "**mine is better than theirs.**" in text
    assert "30 prompts; the judge is score." in text and "seed" not in text


def test_twice_gives_the_same_bytes(samples, tmp_path):
    for name in ("a", "b"):
        assert run("--samples", samples, "--title", "t", "--out", tmp_path / name).exit_code == 0
    for file in ("summary.json", "report.md", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_nothing_to_compare_is_an_error():
    assert isinstance(run().exception, ConfigError)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("kll", "Did you mean 'kl'"),
        ("kl=0", "not a positive number"),
        ("kl=x", "not a positive number"),
    ],
)
def test_a_wrong_budget_is_explained(samples, budget, said):
    error = run("--samples", samples, "--budget", budget).exception
    assert isinstance(error, ConfigError) and said in str(error)


def test_an_unknown_run_names_those_there_are(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run.json").write_text("{}")
    with pytest.raises(ArtifactError, match="there are mine"):
        gather_inputs(tmp_path, ["yours"], [])


def test_an_unknown_baseline_names_the_models(samples):
    with pytest.raises(DataError, match="there are start, ours, theirs"):
        gather_inputs(samples.parent, [], [samples], "nobody")


def test_the_same_model_in_two_files_is_told_apart_by_its_file(samples, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(samples.read_text())
    inputs = gather_inputs(tmp_path, [], [samples, other])
    assert {one.method for one in inputs.runs} >= {"ours", "ours (other)"}
