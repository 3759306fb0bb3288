"""Sweeps: settings that are drawn, what a budget buys, and which trial wins."""

from __future__ import annotations

import json
import math

import pytest

from evaluation.sweeps.results import TUNED, Trial, best_trial, load_trial, report_sweep
from evaluation.sweeps.search_space import (
    Range,
    SearchConfig,
    count_within_budget,
    draw_settings,
    nest_settings,
    setting_at,
)
from plumbline.config import Config, load
from plumbline.runs.artifacts import Artifact

SPACE = {
    "kl.coefficient": Range(low=0.01, high=1.0, scale="log"),
    "epochs": Range(low=1, high=4, integer=True),
    "loss": Range(choices=("sigmoid", "ipo", "hinge")),
}


def test_values_at_places_by_hand():
    log = Range(low=0.01, high=1.0, scale="log")
    assert log.at(0.0) == 0.01
    assert log.at(0.5) == pytest.approx(0.1)
    assert Range(low=2.0, high=4.0).at(0.25) == 2.5
    whole = Range(low=1, high=3, integer=True)
    assert [whole.at(place) for place in (0.0, 0.34, 0.67, 0.999)] == [1, 2, 3, 3]
    assert [Range(choices=(True, None)).at(place) for place in (0.49, 0.5)] == [True, None]
    assert [log.place(value) for value in (0.01, 0.1, 1.0)] == pytest.approx([0, 0.5, 1])
    assert Range(choices=("a", "b", "c")).place("b") == 0.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"low": 2.0, "high": 1.0}, "from low to a larger high"),
        ({"low": 2.0}, "from low to a larger high"),
        ({"low": 0.0, "high": 1.0, "scale": "log"}, "has no zero"),
        ({"low": 0.0, "choices": (1, 2)}, "not both"),
    ],
)
def test_what_is_no_range_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Range(**given)


def test_a_longer_sweep_begins_with_a_shorter_one_whatever_the_order_of_keys():
    eight = draw_settings(SPACE, 8, seed=0)
    assert draw_settings(SPACE, 3, seed=0) == eight[:3]
    assert draw_settings(dict(reversed(SPACE.items())), 8, seed=0) == eight
    assert draw_settings(SPACE, 8, seed=1) != eight
    assert draw_settings({}, 2, seed=0) == [{}, {}]
    assert draw_settings(SPACE, 0, seed=0) == []


def test_eight_draws_fall_into_eight_eighths_of_every_range():
    space = {key: Range(low=0.0, high=8.0) for key in ("a", "b", "c")}
    rows = draw_settings(space, 8, seed=3)
    for key in space:
        assert sorted(math.floor(row[key]) for row in rows) == list(range(8))


def test_dotted_keys_and_back():
    settings = {"kl.coefficient": 0.1, "kl.place": "loss", "epochs": 2}
    tree = {"kl": {"coefficient": 0.1, "place": "loss"}, "epochs": 2}
    assert nest_settings(settings) == tree
    assert {key: setting_at(tree, key) for key in settings} == settings
    with pytest.raises(KeyError):
        setting_at(tree, "kl.target")


def test_a_trial_counts_where_it_ends_within_the_budget():
    assert count_within_budget([3.0, 3.0, 3.0], 6.0) == 2
    assert count_within_budget([3.0, 3.0, 3.0], 8.9) == 2
    assert count_within_budget([3.0, 3.0, 3.0], 9.0) == 3
    assert count_within_budget([1.0] * 8, 8) == 8
    assert (
        count_within_budget([0.1] * 10, 1.0) == 10
    )  # 0.1 ten times is a little less than 1 in floats
    assert count_within_budget([7.0], 6.0) == 0


def trial(number, scores, kl, failure=""):
    return Trial(number, {"x": number}, scores, kl, 10.0, 2.0, failure)


def test_the_highest_mean_within_the_kl_limit_wins():
    trials = [
        trial(0, [1.0, 2.0], [1.0, 1.0]),  # 1.5
        trial(1, [9.0, 9.0], [6.0, 4.0]),  # beyond 4 nats on average
        trial(2, [0.0, 3.6], [4.0, 4.0]),  # 1.8
        trial(3, [1.8, 1.8], [1.0, 1.0]),  # the same, later
        trial(4, [], [], "diverged"),
    ]
    assert best_trial(trials, 4.0).trial.number == 2
    assert best_trial(trials, None).trial.number == 1
    nearest = best_trial(trials[1:2] + trials[4:], 4.0)
    assert (nearest.trial.number, nearest.within_kl) == (1, False)
    assert best_trial(trials[4:], None) is None
    assert best_trial([], None) is None


class Made(Artifact):
    """An artefact of which only the manifest is known."""

    def __init__(self, seconds=1.0, **metrics):
        self._metrics, self._seconds = metrics, seconds

    @property
    def metrics(self):
        return self._metrics

    @property
    def manifest(self):
        return type("Manifest", (), {"seconds": self._seconds})


def pair(score, kl=1.0):
    policy = Made(3.0, tokens_seen=100.0, tokens_sampled=20.0)
    return policy, Made(gold=score, kl=kl)


def test_a_trial_is_gathered_from_its_seeds():
    found = load_trial(2, {"x": 1}, [pair(1.0, 0.5), pair(2.0, 1.5)], "gold")
    assert (found.score, found.mean_kl, found.failure) == (1.5, 1.0, "")
    assert [found.cost(kind) for kind in ("trials", "tokens", "seconds")] == [1, 240, 6]


@pytest.mark.parametrize("broken", [pair(None), pair(math.nan), pair(math.inf), pair(1.0, None)])
def test_a_trial_without_a_number_for_its_score_has_failed(broken):
    found = load_trial(2, {}, [pair(1.0), broken], "gold")
    assert found.failure
    assert found.score == -math.inf


class Tuned(Config):
    """A recipe's config."""

    dpo: dict[str, float]
    """Settings."""


def test_the_report_shows_all_trials_and_writes_what_won(stage):
    methods = {
        "dpo": [
            {"number": 0, "settings": {"beta": 0.1}, "artifacts": [pair(1.0), pair(2.0)]},
            {"number": 1, "settings": {"beta": 0.3}, "artifacts": [pair(2.0), pair(2.0)]},
            {"number": 2, "settings": {"beta": 0.9}, "artifacts": [], "failure": "it | diverged"},
        ],
        "ppo": [{"number": 0, "settings": {"kl.coefficient": 0.2}, "artifacts": [pair(1.0, 9.0)]}],
    }
    search = SearchConfig(
        spaces={
            "dpo": {"beta": Range(low=0.1, high=1.0, scale="log")},
            "ppo": {"kl.coefficient": Range(low=0.1, high=1.0)},
        },
        kl_limit=4.0,
    )
    figures = report_sweep(
        stage,
        title="Tuned",
        recipe="dpo_vs_ppo",
        judge="gold",
        search=search,
        methods=methods,
        tuned=Tuned(dpo={"beta": 0.3}),
    )
    assert figures == {"dpo_gold": 2.0, "ppo_gold": 1.0}
    file = stage.folder / TUNED
    assert file.read_text().startswith("# recipe: dpo_vs_ppo\n")
    assert load(Tuned, file).dpo == {"beta": 0.3}
    summary = json.loads((stage.folder / "summary.json").read_text())
    assert summary["methods"]["dpo"]["winner"] == 1
    assert summary["methods"]["dpo"]["spent"] == {"trials": 3, "tokens": 480, "seconds": 12}
    assert summary["methods"]["ppo"]["within_kl"] is False
    page = (stage.folder / "report.html").read_text()
    body = page[page.index("<body") : page.index("<script>")]
    assert body.count('class="won"') == 2
    assert "it | diverged" in body
    assert "no trial is within the KL limit" in body
    markdown = (stage.folder / "report.md").read_text()
    assert "| 2 | 0.9 | – | – | 0 | 0 | it \\| diverged |" in markdown
    for name in ("scores", "settings-dpo", "settings-ppo"):
        assert (stage.folder / "plots" / f"{name}.svg").read_text().startswith("<svg")
