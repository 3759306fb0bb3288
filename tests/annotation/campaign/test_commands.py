"""``plumbline annotate push`` and ``pull``, as they are typed."""

from __future__ import annotations

import json

import pytest

from annotation.campaign.folder import Campaign
from annotation.gold_answers import read_gold
from plumbline.commands.app import main
from plumbline.data.labels import read_labels


@pytest.fixture
def type_(argilla_site, capsys):
    """Type a command; return its exit code and what it says."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["annotate", *map(str, words), "--home", str(argilla_site.home)])
        said = capsys.readouterr()
        return ended.value.code or 0, " ".join((said.out + said.err).split())

    return run


@pytest.fixture
def file(tmp_path, pairs):
    rows = [
        pair.to_json() | ({"answer": "a"} if number < 2 else {})
        for number, pair in enumerate(pairs(10))
    ]
    rows.append(rows[0] | {"pair_id": "same", "b": rows[0]["a"], "answer": None})
    rows.append({"prompt": "no pair"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_go_out_and_labels_come_back(type_, file, argilla_site, ground, better, tmp_path):
    ana, name = ground.person(), ground.name
    code, said = type_("push", file, "-n", name, "-p", ana, "--overlap", 1, "-s", "strength=false")
    assert code == 0
    # Nine pairs are voted on, one of the two with an answer is gold, and one pair comes twice.
    assert "11 records sent; 9 pairs are new" in said
    assert "9 for vote" in said and "1 for gold" in said and "1 for repeat" in said
    assert "left out 1: has responses that are the same but for case" in said
    assert "left out 1: has the columns prompt, but no a" in said
    assert f"people find them at {argilla_site.url} in the workspace {name}-{ana}" in said
    code, said = type_("push", file, "-n", name)  # settings stay as they were
    assert (code, "0 records sent" in said) == (0, True)
    assert argilla_site.api_key not in said

    code, said = type_("pull", "-n", name)
    assert (code, "nobody has answered yet" in said) == (0, True)
    ground.folder = argilla_site.home / "campaigns" / name
    ground.answer(ana, lambda record: {"choice": better(record)["choice"]})
    code, said = type_("pull", "-n", name, "--wait", 9, "--webhook", "--out", tmp_path / "labels")
    assert code == 0
    assert "11 new answers" in said and "9 vote" in said and "1 gold" in said
    labels = read_labels(tmp_path / "labels")
    assert len(labels) == 11
    assert {label.choice for label in labels} == {"a"}
    assert len(read_gold(tmp_path / "labels")) >= 1
    code, said = type_("pull", "-n", name)
    assert "0 new answers" in said
    (place,) = Campaign(ground.folder).places.values()
    eva = ground.person()
    code, said = type_("push", file, "-n", name, "--adjudicate", eva)
    assert code == 0 and f"10 pairs are new to {eva}'s queue" in said
    assert said.endswith(f"{eva} finds them at {argilla_site.url} in the workspace {name}-{eva}")
    type_("pull", "-n", name)
    ground.server.request("DELETE", f"/datasets/{place.dataset_id}")
    code, said = type_("pull", "-n", name)
    assert (code, "'plumbline annotate pull --offline' gives it" in said) == (3, True)
    code, said = type_("pull", "-n", name, "--offline", "--out", tmp_path / "again")
    assert (code, "11 labels in all" in said) == (0, True)
    assert read_labels(tmp_path / "again") == labels
    code, said = type_("pull", "-n", name, "--offline", "--all")
    assert (code, "--offline asks no server" in said) == (2, True)


def test_settings_are_shown_with_what_they_do(type_, ground):
    code, said = type_("settings", "-n", ground.name)
    assert code == 0
    assert "repeat_distance" in said and "different people vote on each pair" in said
    assert f"name: {ground.name}" in type_("settings", "-n", ground.name, "--yaml")[1]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["push", "FILE", "-n", "x", "-s", "overlapp=2"], 2, "Did you mean 'overlap'?"),
        (["push", "FILE", "-n", "x", "-p", "nobody", "--overlap", 1], 2, "no user 'nobody'"),
        (["push", "FILE", "-n", "x", "-s", "workspace=w"], 2, "There is no workspace 'w'"),
        (["push", "nothing.jsonl", "-n", "x"], 3, "There are no pairs at nothing.jsonl"),
        (["push", "FILE", "-n", "x", "--adjudicate", "eva"], 3, "There is no campaign in"),
        (["push", "FILE", "-n", "x", "--adjudicate", "eva", "-p", "ana"], 2, "would change it"),
        (["pull", "-n", "x"], 3, "There is no campaign in"),
        (["pull", "-n", "x", "--server", "http://127.0.0.1:9"], 3, "There is no campaign in"),
        (
            ["push", "FILE", "-n", "x", "--server", "http://127.0.0.1:9"],
            2,
            "There is no API key for http://127.0.0.1:9",
        ),
    ],
)
def test_mistakes_are_told(type_, file, monkeypatch, words, code, message):
    monkeypatch.delenv("ARGILLA_API_KEY", raising=False)
    words = [str(file) if word == "FILE" else word for word in words]
    found, said = type_(*words)
    assert found == code
    assert message in said
