"""``plumbline evaluate``: models by every name, the same figures twice, errors that help."""

from __future__ import annotations

import functools
import json
import shutil

import pandas as pd
import pytest
import torch

from evaluation.config import EvaluationConfig
from plumbline.commands import app
from plumbline.commands.evaluation import run_evaluation
from plumbline.commands.evaluation.evaluation_pages import short_titles
from plumbline.commands.evaluation.metric_tables import as_markdown, metric_lines
from plumbline.errors import ArtifactError, ConfigError, DataError, ModelError
from plumbline.lm.load import load_causal_lm, trainable_causal_lm
from plumbline.lm.model_folder import source_of
from plumbline.lm.policy import Policy
from plumbline.lm.save import model_card, save_model
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Manifest, entries, read_json, write_json
from plumbline.runs.run import Run
from recipes._models import find_model

SMALL = ("--count", "6", "--set", "evaluation.sampling.max_new_tokens=12")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Stages run in this process, which has all libraries loaded."""
    monkeypatch.setattr(run_evaluation, "Run", functools.partial(Run, isolate=False))


@pytest.fixture(scope="module")
def other_folder(base_folder, tmp_path_factory):
    """The same model with other weights, as a folder that from_pretrained reads."""
    folder = tmp_path_factory.mktemp("other") / "moved"
    model = load_causal_lm(base_folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    load_tokenizer(base_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def evaluate(tmp_path):
    """Give the command; return what it wrote."""

    def go(*arguments, home="home", out="out"):
        app.app(
            args=["evaluate", *map(str, arguments), "--home", str(tmp_path / home), "--out",
                  str(tmp_path / out), *SMALL],
            standalone_mode=False,
        )  # fmt: skip
        return tmp_path / out

    return go


def test_evaluated_twice_the_numbers_are_the_same_to_the_last_digit(
    evaluate, base_folder, other_folder, capsys
):
    made = [
        evaluate(other_folder, "--reference", base_folder, home=f"home-{n}", out=f"out-{n}")
        for n in range(2)
    ]
    for name in ("metrics.json", "samples.parquet", "evaluation.md"):
        assert (made[0] / name).read_bytes() == (made[1] / name).read_bytes(), name
    figures = read_json(made[0] / "metrics.json")["tasks"]["world"]
    assert set(figures) == {"moved", base_folder.name}
    moved = figures["moved"]
    assert moved["kl"] > 0 and moved["prompts"] == 6
    assert moved["gold_win_rate_low"] <= moved["gold_win_rate"] <= moved["gold_win_rate_high"]
    assert figures[base_folder.name]["kl"] == pytest.approx(0, abs=1e-4)
    for name in ("self_bleu", "f1", "bleu", "perplexity", "format_errors", "refusal"):
        assert name in moved, name
    samples = pd.read_parquet(made[0] / "samples.parquet")
    assert len(samples) == 12 and set(samples["model"]) == set(figures)
    assert moved["gold"] == pytest.approx(samples.groupby("model")["gold"].mean()["moved"])
    assert "gold utility ↑" in capsys.readouterr().out


def test_the_size_of_the_batch_changes_no_answer_and_no_figure(evaluate, other_folder, base_folder):
    """Log-probabilities differ by rounding: figures by less than 1e-4."""
    found = []
    for size in (1, 4):
        out = evaluate(
            other_folder, "--reference", base_folder,
            "--set", f"evaluation.sampling.batch_size={size}",
            home=f"home-{size}", out=f"out-{size}",
        )  # fmt: skip
        samples = pd.read_parquet(out / "samples.parquet")["response"].tolist()
        found.append((samples, read_json(out / "metrics.json")["tasks"]["world"]["moved"]))
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-4)


def test_another_measure_is_taken_of_the_same_answers(evaluate, base_folder, monkeypatch, capsys):
    evaluate(base_folder, "--measures", "distinct_1")
    monkeypatch.setattr(Policy, "sample", None)  # from here on nobody can
    out = evaluate(base_folder, "--measures", "distinct_1,rouge_1")
    figures = read_json(out / "metrics.json")["tasks"]["world"][base_folder.name]
    assert {"distinct_1", "rouge_1", "rouge_1_se"} <= set(figures)
    assert "self_bleu" not in figures
    assert "made before" in capsys.readouterr().out


def test_prompts_and_texts_come_from_files(evaluate, base_folder, tmp_path):
    prompts, text = tmp_path / "ask.jsonl", tmp_path / "read.txt"
    rows = [{"prompt": f"What is {n} + 1?", "references": [str(n + 1)]} for n in range(9)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text.write_text("The saws cost $7.")
    out = evaluate(base_folder, "--prompts", prompts, "--task", f"text:{text}")
    tasks = read_json(out / "metrics.json")["tasks"]
    (of_text,) = tasks[f"text:{text}"].values()
    assert of_text["word_perplexity"] > 1
    (asked,) = tasks[str(prompts)].values()
    assert asked["prompts"] == 6 and "numeric_accuracy" in asked
    assert "gold" not in asked and "kl" not in asked
    table = (out / "evaluation.md").read_text()
    assert "correct numeric results ↑" in table and "| measure | unit |" in table


def test_people_get_pairs_and_their_labels_come_back(evaluate, base_folder, other_folder, tmp_path):
    from annotation.campaign.pairs import read_pairs
    from plumbline.data.labels import Label, write_labels

    asked = (other_folder, "--reference", base_folder, "--judge", "people")
    out = evaluate(*asked)
    pairs, report = read_pairs(out / "pairs-world-moved.parquet")
    assert len(pairs) + report.rows - report.kept > 2
    folder = tmp_path / "labels"
    folder.mkdir()
    write_labels(
        folder,
        [Label(pair.id, "p", "argilla", "tie", "2026-01-01T00:00:00+00:00", "a") for pair in pairs],
    )
    out = evaluate(*asked, "--labels", folder)
    figures = read_json(out / "metrics.json")["tasks"]["world"]["moved"]
    assert figures["people_votes"] == len(pairs)
    assert figures["people_win_rate"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("nowhere/at/all",), ModelError, "no model 'nowhere/at/all'"),
        (("BASE", "--judge", "people"), ConfigError, "--reference"),
        (("BASE", "--judge", "taste"), ConfigError, "is no judge"),
        (("BASE", "--judge", "reward"), ConfigError, "cannot judge the task"),
        (("BASE", "--measures", "blue"), ConfigError, "is no measure"),
        (("BASE", "--measures", "reference_perplexity"), ConfigError, "reference_model"),
        (("BASE", "--labels", "x"), ConfigError, "--judge people"),
        (("BASE", "--prompts", "none.jsonl"), DataError, "no file none.jsonl"),
        (("BASE", "--set", "evaluation.resample=2"), ConfigError, "resamples"),
        ((), ConfigError, "Give one model"),
    ],
)
def test_what_cannot_be_done_is_said(evaluate, base_folder, arguments, error, message):
    given = [base_folder if argument == "BASE" else argument for argument in arguments]
    with pytest.raises(error, match=message):
        evaluate(*given)


def test_a_language_model_as_the_reward_is_refused_before_anything_is_sampled(
    evaluate, base_folder, monkeypatch
):
    monkeypatch.setattr(Policy, "sample", None)
    with pytest.raises(ModelError, match=r"no trained reward head.*it is a language model"):
        evaluate(base_folder, "--reward", base_folder)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "home", "run", "test", EvaluationConfig(), isolate=False)


def stored(run, folder, identity, kind="policy"):
    """Put a copy of a folder into the store."""
    made = run.home / identity
    shutil.copytree(folder, made)
    manifest = Manifest(
        kind=kind, id=identity, schema_version=1, stage="test", arguments={}, inputs={}, seed=0,
        data_seed=0, metrics={}, versions={}, machine={}, seconds=0.0, peak_memory_bytes=0,
        files=entries(made),
    )  # fmt: skip
    run.store.root.mkdir(exist_ok=True)
    return run.store.publish(made, manifest)


def test_a_model_is_found_by_each_of_its_names(run, base_folder):
    artifact = stored(run, base_folder, "policy-0123456789ab")
    (run.home / "earlier").mkdir()
    write_json(
        run.home / "earlier" / "run.json",
        {"started": "", "status": "finished", "stages": {"dpo/seed-0": {"artifact": artifact.id}}},
    )
    for name in ("policy-0123456789ab", "policy-01", "earlier:dpo/seed-0", str(artifact.path)):
        assert find_model(run, name, "model").id == artifact.id, name
    with pytest.raises(ArtifactError, match="no stage 'ppo'; it has dpo/seed-0"):
        find_model(run, "earlier:ppo", "model")
    stored(run, base_folder.parent / "checkpoints", "labels-0123456789ab", "labels")
    with pytest.raises(ArtifactError, match="holds no model"):
        find_model(run, "labels-01", "model")


def test_a_folder_with_other_weights_is_another_model(run, base_folder, other_folder, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(base_folder, folder)
    before = find_model(run, str(folder), "model")
    assert find_model(run, str(folder), "model").id == before.id
    shutil.copyfile(other_folder / "model.safetensors", folder / "model.safetensors")
    assert find_model(run, str(folder), "model").id != before.id
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="neither config"):
        find_model(run, str(tmp_path / "empty"), "model")


def test_an_adapter_s_folder_is_a_model(run, base_folder, tmp_path, prompts):
    torch.manual_seed(0)
    model = trainable_causal_lm(base_folder, TuningConfig(method="lora", rank=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    folder = tmp_path / "adapter"
    save_model(
        model, load_tokenizer(base_folder), folder, source=base_folder,
        card=model_card("A", "An adapter."),
    )  # fmt: skip
    found = find_model(run, str(folder), "model")
    assert source_of(found.path).adapter == folder
    one, other = Policy.load(found.path), Policy.load(folder)
    ids = torch.tensor([one.encode(prompts[0])])
    with torch.no_grad():
        said = one.model(ids).logits
        assert torch.equal(said, other.model(ids).logits)
        assert not torch.equal(said, Policy.load(base_folder).model(ids).logits)


def test_tables_say_errors_intervals_and_what_is_missing():
    figures = {
        "a|b": {"gold": 1.5, "gold_se": 0.25, "gold_win_rate": 0.75, "gold_win_rate_low": 0.5,
                "gold_win_rate_high": 0.875, "kl": 3.0, "perplexity.nats": 1.0},
        "c": {"gold": 2.0, "format_errors": 0.5, "format_errors.cut_off": 0.25},
    }  # fmt: skip
    shown = {line.title: line.values for line in metric_lines(figures)}
    assert shown == {
        "gold utility ↑": ["1.5 ± 0.25", "2"],
        "win rate by gold ↑": ["0.75 [0.5, 0.875]", "–"],
        "KL to the reference": ["3", "–"],
        "responses with a format error ↓": ["–", "0.5"],
        "· cut off": ["–", "0.25"],
    }
    text = as_markdown({"tasks": {"world": figures}})
    assert "| gold utility ↑ | points | 1.5 ± 0.25 | 2 |" in text
    assert r"| measure | unit | a\|b | c |" in text


def test_html_is_the_page_of_a_comparison(evaluate, base_folder, other_folder):
    out = evaluate(other_folder, "--reference", base_folder, "--html")
    text = (out / "report.html").read_text("utf-8")
    assert "<title>Evaluation on world" in text and 'class="headline"' in text
    markdown = (out / "report.md").read_text("utf-8")
    for shown in ("moved", base_folder.name, "6 prompts; the judge is gold utility"):
        assert shown in markdown
    assert "seed may turn" not in markdown and "end of training" not in markdown
    assert (out / "metrics.json").exists()


def test_the_page_names_models_by_what_tells_them_apart():
    assert short_titles(["run:sft", "run:dpo/seed-0", "run:ppo/seed-0"]) == (
        "run",
        {"run:sft": "sft", "run:dpo/seed-0": "dpo/seed-0", "run:ppo/seed-0": "ppo/seed-0"},
    )
    assert short_titles(["org/small", "org/large"])[1]["org/small"] == "small"
    other = ["run-1:sft", "run-2:sft"]
    assert short_titles(other) == ("", dict(zip(other, other, strict=True)))
    assert short_titles(["run:sft"]) == ("", {"run:sft": "run:sft"})
    assert short_titles(["a/b", "a/b/c"]) == ("a", {"a/b": "b", "a/b/c": "b/c"})


def test_html_of_one_model_alone_and_of_measures(evaluate, base_folder, tmp_path):
    task = tmp_path / "sums.jsonl"
    task.write_text("".join(json.dumps({"prompt": f"{n} + 1?", "completion": f"{n + 1}"}) + "\n"
                            for n in range(6)))  # fmt: skip
    out = evaluate(base_folder, "--task", task, "--task", "world", "--html")
    for folder in ("sums.jsonl", "world"):
        assert "there is no other policy to compare" in (out / folder / "report.md").read_text()
    assert "exact match" in (out / "sums.jsonl" / "report.md").read_text()


def test_html_without_a_score_says_what_is_missing(evaluate, base_folder, tmp_path):
    task = tmp_path / "prompts.jsonl"
    task.write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(6)))
    with pytest.raises(ConfigError, match="--html compares by a score"):
        evaluate(base_folder, "--task", task, "--html", "--measures", "distinct_1")
