"""Labels of reward models where they are sure, with the source of each label kept."""

from __future__ import annotations

import math

import pytest

from plumbline.data.records import assistant, read_dataset, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from preference.pairs_config import RelabelConfig
from preference.relabel import opinion_of, relabel_preferences, relabeled

LN3 = math.log(3)


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


class Likes:
    """Scores a response by how often a letter stands in it."""

    name = "likes"

    def __init__(self, letter):
        self.letter = letter

    def score(self, prompts, responses):
        return [float(text.count(self.letter)) for text in responses]


def test_opinions_by_hand():
    # sigma(ln 3) = 3/4, sigma(-ln 3) = 1/4, sigma(0) = 1/2.
    assert opinion_of([LN3, -LN3, LN3]) == pytest.approx(((0.75 + 0.25 + 0.75) / 3, LN3 / 3, 2 / 3))
    assert opinion_of([0.0, LN3]) == pytest.approx((0.625, LN3 / 2, 0.75))
    assert opinion_of([-LN3]).confidence == pytest.approx(0.75)


def row_of(chosen, rejected):
    return {"prompt": [user("?")], "chosen": [assistant(chosen)], "rejected": [assistant(rejected)]}


def test_a_sure_model_turns_a_pair_and_says_how_sure_it_is():
    row, config = row_of("a", "bb"), RelabelConfig(confidence=0.7)
    turned = relabeled(row, opinion_of([-LN3]), config)
    assert turned["chosen"] == row["rejected"] and turned["rejected"] == row["chosen"]
    assert (turned["label_source"], turned["margin"]) == ("model", pytest.approx(LN3))
    assert turned["soft_label"] == pytest.approx(0.75)
    kept = relabeled(row, opinion_of([LN3]), config)
    assert (kept["chosen"], kept["label_source"]) == (row["chosen"], "model")


def test_unsure_models_leave_the_label_of_people_or_no_pair():
    row, unsure = row_of("a", "bb"), opinion_of([0.1])
    assert relabeled(row, unsure, RelabelConfig()) == row | {"label_source": "human"}
    assert relabeled(row, unsure, RelabelConfig(unsure="drop")) is None
    # Sure in the mean, but not of one mind.
    divided = opinion_of([9.0, 9.0, -0.5])
    assert relabeled(row, divided, RelabelConfig(agreement=0.7))["label_source"] == "human"
    assert relabeled(row, divided, RelabelConfig(agreement=0.6))["label_source"] == "model"


def relabel(tmp_path, scorers, **settings):
    rows = [row_of("bb", "a"), row_of("aaa", "a"), row_of("c", "d")]
    folder = tmp_path / "preferences"
    folder.mkdir(parents=True, exist_ok=True)
    splits = {"train": rows, "test": rows[:1]}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    stage = Stage(tmp_path / "stage", Reporter(quiet=True))
    figures = relabel_preferences(
        stage, config=RelabelConfig(**settings), preferences=Folder(folder), scorers=scorers
    )
    return read_dataset(stage.folder, "train"), figures


def test_a_dataset_keeps_the_source_of_each_label(tmp_path):
    rows, figures = relabel(tmp_path, [Likes("a")])
    assert [row["label_source"] for row in rows] == ["model", "model", "human"]
    assert rows[0]["chosen"][0]["content"] == "a"
    assert figures["model_share"] == pytest.approx(2 / 3)
    assert figures["agreement_with_labels"] == pytest.approx(1 / 3)


def test_pairs_are_scored_some_at_a_time_with_the_same_result(tmp_path, monkeypatch):
    expected = relabel(tmp_path / "all", [Likes("a")], unsure="drop")
    monkeypatch.setattr("preference.relabel._SCORED_AT_ONCE", 2)
    assert relabel(tmp_path / "two", [Likes("a")], unsure="drop") == expected
    (left_out,) = Dropped.read(tmp_path / "two/stage/out").rows
    assert (left_out["row"], left_out["record"]["chosen"][0]["content"]) == (3, "c")


def test_scorers_that_are_sure_of_nothing_are_told_so(tmp_path):
    with pytest.raises(DataError, match=r"sure of none of 3 pairs.*confidence \(0\.7\)"):
        relabel(tmp_path, [Likes("z")], unsure="drop")
