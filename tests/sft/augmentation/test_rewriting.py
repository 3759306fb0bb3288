"""Paraphrase and back-translation: what counts as the same meaning, and where copies go."""

from __future__ import annotations

import json

import pytest

from plumbline.config import load
from plumbline.data.encryption import KEY_FILE_VARIABLE, new_key
from plumbline.data.records import assistant, read_dataset, user
from plumbline.errors import ConfigError, ModelError
from plumbline.runs.artifacts import read_json
from plumbline.runs.calls import resolve
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from sft.augmentation.kept_meaning import change_of_meaning
from sft.build import build_dataset
from sft.build.config import BuildConfig
from sft.cleaning.step import StepContext
from sft.cleaning.steps import STEPS, read_step
from tests.endpoint_server import EndpointServer, completion


@pytest.mark.parametrize(
    ("text", "rewritten", "change"),
    [
        ("How do I reset 2 clocks?", "In what way are 2 clocks reset?", None),
        ("How do I reset 2 clocks?", "How do I reset 3 clocks?", "other numbers"),
        ("How do I reset it?", "how do I  reset it", "the same text"),
        ("How do I go to Berlin?", "Which way leads to Berlin?", None),
        ("How do I go to Berlin?", "Which way leads to the city?", "lacks a name"),
        ("How do I go to the city?", "Which way leads to Berlin?", "has another name"),
        ("Is the USB port fast?", "Does the port called USB work fast?", None),
        ("Why does `a.b` fail?", "What makes `a.c` fail?", "other code"),
        ("See https://a.org/b now", "Look at https://a.org/c now", "other code or addresses"),
        ("Why may I not enter?", "Why may I enter there?", "says no"),
        ("Why may I not enter?", "Why can't I go inside?", None),
        ("Hi there", "Hi there, dear friend of mine, how are you", "longer or shorter"),
        ("请问北京2号线怎么走？", "怎么坐北京2号线？", None),
        ("请问北京2号线怎么走？", "怎么坐北京3号线？", "other numbers"),
        ("为什么不能进去？", "为什么可以进去？", "says no"),
        ("怎么装USB驱动？", "如何安装驱动程序？", "lacks a name"),
    ],
)
def test_a_meaning_is_kept_where_names_numbers_and_negations_are(text, rewritten, change):
    problem = change_of_meaning(text, rewritten)
    assert problem is None if change is None else change in problem


def rows(count=24):
    return [
        {"prompt": f"Where can guest {n} find the {word} room?", "completion": f"On floor {n}."}
        for n, word in zip(range(count), ["red", "blue", "green"] * count, strict=False)
    ]


def other_words(payload):
    """Paraphrase well, but with another number where guest 3 asks; translate by marks."""
    asked = payload["messages"][0]["content"]
    task, text = asked.split("\n\n", 1)
    if task.startswith("Say"):
        text = text.replace("Where can guest", "In which place does guest")
        return completion(text.replace("guest 3 ", "guest 4 "))
    if task.startswith("Translate the following into German"):
        return completion(f"DEUTSCH {text}")
    assert task.startswith("Translate the following from German into English")
    return completion(text.removeprefix("DEUTSCH ").replace("can guest", "may guest"))


@pytest.fixture
def server():
    made = EndpointServer(other_words)
    yield made
    made.close()


def build(folder, server, step="paraphrase", more="", cache=None):
    folder.mkdir(parents=True, exist_ok=True)
    source = folder.parent / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (folder / "build.yaml").write_text(
        f"name: mine\nsources: [{{path: {source}}}]\nsplits: {{held_out_share: 0.3}}\n"
        f"steps:\n  - exact_duplicates\n  - step: {step}\n"
        f"    endpoint: {{model: m, base_url: '{server.url}'}}\n{more}"
    )
    config = load(BuildConfig, folder / "build.yaml")
    stage = Stage(folder / "stage", Reporter(quiet=True))
    if cache is not None:
        stage.cache = cache
    build_dataset(stage, config=config.cleaning(), sources=resolve(config.opened()), data_seed=0)
    return stage


def test_copies_are_marked_and_of_training_rows_alone(tmp_path, server):
    stage = build(tmp_path / "one", server)
    train, test = (read_dataset(stage.folder, split) for split in ("train", "test"))
    copies = [row for row in train if row["augmentation"]]
    originals = {row["row"]: row for row in train if not row["augmentation"]}
    refused = 3 in (row["row"] - 1 for row in originals.values())
    assert len(copies) == len(originals) - refused > 8
    for copy in copies:
        assert copy["augmentation"] == "paraphrase"
        before, after = originals[copy["row"]]["messages"], copy["messages"]
        assert after[0]["content"] == before[0]["content"].replace(
            "Where can guest", "In which place does guest"
        )
        assert after[1] == before[1]  # what is learnt stays as it was
    assert len(test) > 2
    assert not any("which place" in row["messages"][0]["content"] for row in test)
    asked = {payload["messages"][0]["content"].split("\n\n")[1] for payload in server.requests}
    assert not asked & {row["messages"][0]["content"] for row in test}
    report = read_json(stage.folder / "build.json")
    (changed,) = (s["changed"] for s in report["steps"] if s["step"] == "paraphrase")
    assert changed["a copy was made by paraphrase"] == len(copies)
    if refused:
        assert changed["a copy by paraphrase was not kept: it has other numbers"] == 1


def test_a_build_that_died_asks_for_nothing_twice_and_has_the_same_bytes(tmp_path, server):
    whole = build(tmp_path / "whole", server).folder
    server.requests.clear()
    left = iter(range(6))
    server.reply = lambda payload: (
        other_words(payload) if next(left, None) is not None else (401, {"error": {}})
    )
    cache = tmp_path / "cache"
    with pytest.raises(ModelError, match="The same command resumes"):
        build(tmp_path / "died", server, cache=cache)
    server.reply = other_words
    server.answered.clear()
    again = build(tmp_path / "again", server, cache=cache).folder
    assert (
        sum(server.answered.values())
        == len([row for row in read_dataset(whole, "train") if not row["augmentation"]]) - 6
    )
    for name in ("train.parquet", "test.parquet", "build.json"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()


def test_a_text_comes_back_from_another_language(tmp_path, server):
    stage = build(tmp_path / "one", server, "back_translation", "    language: German\n")
    copies = [row for row in read_dataset(stage.folder, "train") if row["augmentation"]]
    assert len(copies) > 8
    assert all("Where may guest" in copy["messages"][0]["content"] for copy in copies)


def test_where_rows_are_encrypted_no_answer_stays_in_the_clear(tmp_path, server, monkeypatch):
    new_key(tmp_path / "key")
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "key"))
    stage = build(tmp_path / "one", server, more="encrypt: true\n", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert not any("guest" in f.read_text("utf-8", "replace") for f in stage.folder.iterdir())


def test_one_writer_must_be_named_and_a_model_must_be_there():
    for step in (
        {"step": "paraphrase"},
        {"step": "paraphrase", "model": "a", "endpoint": {"model": "b"}},
    ):
        with pytest.raises(ValueError, match="Give one of them"):
            read_step(step, 1)
    config = read_step({"step": "paraphrase", "model": "a/b", "sampling": {"top_k": 5}}, 1)
    assert config.models() == ("a/b",)
    # One setting leaves the defaults of the others as the page has them.
    assert (config.sampling.temperature, config.sampling.max_new_tokens) == (0.7, 256)
    with pytest.raises(ConfigError, match="Build the dataset by `plumbline data build`"):
        STEPS["paraphrase"].prepare(config, StepContext())


def test_a_share_of_the_rows_gets_copies_and_no_copy_is_copied(server, tmp_path):
    config = read_step(
        {"step": "paraphrase", "share": 0.5, "endpoint": {"model": "m", "base_url": server.url}}, 1
    )
    step = STEPS["paraphrase"].prepare(config, StepContext(answers=tmp_path))
    given = [
        {
            "messages": [user(f"Where can guest {n} find it?"), assistant("There.")],
            "origin": "x", "row": n, "tier": "base",
        }
        for n in range(60)
    ]  # fmt: skip
    given[7]["augmentation"] = "surface"
    outcomes = list(step(given))
    copies = [outcome.rows[1] for outcome in outcomes if len(outcome.rows) > 1]
    assert 15 < len(copies) < 45
    assert {copy["tier"] for copy in copies} == {"augmented"}
    assert len(outcomes[7].rows) == 1
