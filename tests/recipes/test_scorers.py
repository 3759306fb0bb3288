"""Scorers by a user's names: files of terms, addresses, models; and what identifies them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from plumbline.data.records import user
from plumbline.errors import ConfigError, ModelError
from plumbline.runs.calls import resolve
from recipes._scorers import SCORERS, named_scorer, scorer_content
from reward.content import content_of
from reward.server.serve import RewardServer


def find(name):
    return Path(name)


@pytest.fixture
def terms(tmp_path):
    def write(text, name="reward.yaml"):
        file = tmp_path / name
        file.write_text(text)
        return str(file)

    return write


def score(call, *responses, question="p"):
    return resolve(call).score([[user(question)]] * len(responses), responses)


def test_a_file_of_terms(terms, tmp_path):
    (tmp_path / "answers.jsonl").write_text(json.dumps({"prompt": "p", "reference": "4"}) + "\n")
    file = terms(
        f"""
terms:
  - {{kind: answer, answers: {tmp_path / "answers.jsonl"}, compare: numeric}}
  - {{kind: length, at_most: 2, weight: 2, name: short}}
  - {{kind: matches, expression: "^Answer", weight: 0.5}}
"""
    )
    # "It is 4": right, 3 words of 2 (-1/2, twice), no match. "Answer: 4": right, short, a match.
    assert score(named_scorer(file, find), "It is 4", "Answer: 4") == [0.0, 1.5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("other: 1", "must hold 'terms'"),
        ("terms: []", "must hold 'terms'"),
        ("terms: [{weight: 1}]", "term 1 has no kind. Kinds of scorers: model"),
        ("terms: [{kind: lenght}]", "Did you mean 'length'"),
        ("terms: [{kind: length, most: 3}]", r"term 1 \(length\): most: Extra inputs"),
        ("terms: [{kind: length, at_most: 0}]", "at_most: Input should be greater"),
        ("terms: [{kind: length, weight: high}]", "'high', which is not a number"),
        ("terms: [{kind: pattern, expression: '('}]", "not a regular expression"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(terms, text, words):
    with pytest.raises(ConfigError, match=words):
        resolve(named_scorer(terms(text), find))


def test_every_kind_says_what_it_scores_and_documents_its_settings():
    for kind in SCORERS.values():
        assert kind.about.endswith(".")
        for name, field in kind.settings.model_fields.items():
            assert field.description, f"{kind.name}.{name}"


def test_terms_are_identified_by_what_they_say(terms):
    first, again, other = (
        scorer_content(named_scorer(terms(f"terms: [{{kind: length, at_most: {n}}}]", name), find))
        for n, name in ((3, "a.yaml"), (3, "b.yaml"), (4, "a.yaml"))
    )
    assert first == again != other


def test_a_server_is_known_by_its_model(terms):
    call = named_scorer(terms("terms: [{kind: length, at_most: 1}]"), find)
    server = RewardServer(resolve(call), scorer_content(call)).start()
    try:
        remote = named_scorer(server.url, find)
        assert scorer_content(remote) == scorer_content(call)
        assert score(remote, "a b") == [-1.0]
    finally:
        server.close()
    with pytest.raises(ModelError, match="No reward server answers"):
        named_scorer(server.url, find)


def test_a_model_is_identified_by_its_files(base_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(base_folder, copy)
    assert content_of(copy) == content_of(base_folder)
    (copy / "README.md").write_text("changes no score")
    assert content_of(copy) == content_of(base_folder)
    config = copy / "config.json"
    config.write_text(config.read_text() + "\n")
    assert content_of(copy) != content_of(base_folder)
