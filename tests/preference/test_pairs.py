"""Pairs of several policies and temperatures, ranked by a scorer, refined, and with faults."""

from __future__ import annotations

import json
import random

import pytest
from pydantic import ValidationError

from plumbline.data.records import assistant, read_dataset, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.pairs import EncodedPair
from preference.batches import pair_examples
from preference.config import DPOConfig
from preference.corruptions import CORRUPTIONS, rude_tone, skipped_step, wrong_number
from preference.label_sources import LabelReader, import_labels, pair_labels
from preference.pairs import rank_pairs, sample_pairs
from preference.pairs_config import (
    PairFilterConfig,
    PairsConfig,
    PreferenceFileConfig,
    RankingConfig,
    RefineConfig,
)
from preference.refine import balanced_by_length, refine_preferences, with_faults
from preference.responses import sample_responses
from preference.sources import read_preferences

PROMPTS = [[user(f"How much are {n} saws?")] for n in range(12)]


class Named(Artifact):
    """A folder as an artefact of any name."""

    def __init__(self, path, name):
        super().__init__(path)
        object.__setattr__(self, "name", name)

    @property
    def id(self) -> str:
        return self.name


class LikesLength:
    name = "length"

    def score(self, prompts, responses):
        return [float(len(text)) for text in responses]


def stage_in(folder):
    return Stage(folder, Reporter(quiet=True))


def sampled(tmp_path, base_folder, name="stage", others=(), **changes):
    config = {"responses": 4, "sampling": {"max_new_tokens": 6}, "pairs_per_prompt": 6} | changes
    stage = stage_in(tmp_path / name)
    figures = sample_pairs(
        stage, config=PairsConfig(**config), policy=Named(base_folder, "mine"), prompts=PROMPTS,
        seed=0, others=[Named(base_folder, name) for name in others],
    )  # fmt: skip
    return read_dataset(stage.folder, "train"), figures


# --- Who gave a response. -----------------------------------------------------------------------


def test_each_response_says_whose_it_is_and_the_policy_s_own_share_is_stated(base_folder, tmp_path):
    rows, figures = sampled(tmp_path, base_folder, others=["theirs"], pairs_per_prompt=4)
    names = [row[f"{side}_policy"] for row in rows for side in ("a", "b")]
    assert set(names) == {"mine", "theirs"}
    assert figures["on_policy_share"] == pytest.approx(names.count("mine") / len(names))
    assert 0.2 < figures["on_policy_share"] < 0.8
    assert figures["responses"] == 12 * 4 * 2
    alone, figures = sampled(tmp_path, base_folder, "alone")
    assert figures["on_policy_share"] == 1.0
    assert {row["a_policy"] for row in alone} == {"mine"}


def test_another_policy_draws_from_streams_of_its_own(base_folder, tmp_path):
    """The same weights under another name say something else."""
    rows, _ = sampled(tmp_path, base_folder, others=["theirs"])
    mine, theirs = (
        {
            row[side][0]["content"]
            for row in rows
            for side in ("a", "b")
            if row[f"{side}_policy"] == name
        }
        for name in ("mine", "theirs")
    )
    assert len(mine & theirs) < 0.2 * len(mine)


def drawn(tmp_path, base_folder, name="stage", policies=("mine",), **changes):
    config = PairsConfig(**{"responses": 4, "sampling": {"max_new_tokens": 6}} | changes)
    answered = sample_responses(
        stage_in(tmp_path / name), [Named(base_folder, policy) for policy in policies],
        PROMPTS, config, 0, Dropped(),
    )  # fmt: skip
    return [[r for r in one.responses if r.policy == "mine"] for one in answered]


def test_temperatures_take_turns(base_folder, tmp_path):
    answered = drawn(tmp_path, base_folder, temperatures=(0.02, 1.5))
    assert all([r.temperature for r in own] == [0.02, 1.5, 0.02, 1.5] for own in answered)
    # At nearly 0 both draws are the likeliest response, hot ones hardly ever are the same.
    cold = sum(own[0].text == own[2].text for own in answered)
    hot = sum(own[1].text == own[3].text for own in answered)
    assert cold > 8 and hot <= 1


def test_a_response_does_not_depend_on_what_else_is_drawn(base_folder, tmp_path):
    def texts(name, **changes):
        return [[r.text for r in own] for own in drawn(tmp_path, base_folder, name, **changes)]

    alone = texts("alone")
    assert [len(several) for several in alone] == [4] * 12
    assert texts("with another", policies=("mine", "theirs")) == alone
    assert texts("at the same temperature twice", temperatures=(1.0, 1.0)) == alone
    assert [several[:4] for several in texts("with more of its own", responses=5)] == alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperatures": [0.5], "sampling": {"temperature": 0.7}}, "sampling.temperature is 0.7"),
        (
            {"temperatures": [1, 1, 1], "responses": 2, "pairs_per_prompt": 1},
            "3 temperatures for 2",
        ),
        ({"temperatures": []}, "at least 1"),
        ({"temperatures": [0.0]}, "greater than 0"),
    ],
)
def test_temperatures_without_use_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        PairsConfig(**changes)


# --- Ranked by a scorer. ------------------------------------------------------------------------


def ranked(tmp_path, base_folder, ranking, **changes):
    stage = stage_in(tmp_path / "stage")
    config = {"responses": 4, "sampling": {"max_new_tokens": 6}, "pairs_per_prompt": 6} | changes
    figures = rank_pairs(
        stage, config=PairsConfig(**config), ranking=RankingConfig(**ranking),
        policy=Named(base_folder, "mine"), prompts=PROMPTS, scorer=LikesLength(), seed=0,
        data_seed=0,
    )  # fmt: skip
    rows = [row for split in ("train", "test") for row in read_dataset(stage.folder, split)]
    return rows, figures, stage


def test_the_better_response_is_chosen_and_the_margin_is_the_gap(base_folder, tmp_path):
    rows, figures, _ = ranked(tmp_path, base_folder, {"held_out_share": 0.3})
    assert len(rows) >= 10
    for row in rows:
        chosen, rejected = (len(row[side][0]["content"]) for side in ("chosen", "rejected"))
        assert row["margin"] == chosen - rejected > 0
        assert row["label_source"] == "model"
    assert figures["pairs"] == len(rows)
    assert figures["mean_margin"] == pytest.approx(sum(r["margin"] for r in rows) / len(rows))


def test_every_pair_at_most_so_many_and_what_makes_none_is_counted(base_folder, tmp_path):
    rows, _, _ = ranked(
        tmp_path, base_folder, {"pairing": "all", "held_out_share": 0.3}, pairs_per_prompt=3
    )
    counts = [sum(row["prompt"] == prompt for row in rows) for prompt in PROMPTS]
    assert max(counts) == 3
    with pytest.raises(DataError, match="within min_gap"):
        ranked(tmp_path / "none", base_folder, {"min_gap": 1e6})


# --- Refined. -----------------------------------------------------------------------------------


def row(n, chosen, rejected, **more):
    return {
        "pair_id": f"p{n}", "prompt": [user(f"q{n}")], "chosen": [assistant(chosen)],
        "rejected": [assistant(rejected)],
    } | more  # fmt: skip


def test_preferences_are_filtered_balanced_and_extended(tmp_path):
    rows = [row(n, f"It costs ${n + 10} in all. Thanks.", "no") for n in range(6)]
    rows += [row(6, "no", "It costs more than that."), row(7, "same text", "same texts")]
    folder = tmp_path / "preferences"
    write_dataset(
        folder, {"train": rows, "test": rows[:1]}, kind="preference", title="P", description=""
    )
    config = RefineConfig(
        filter=PairFilterConfig(max_similarity=0.9), balance_length=True, negatives=0.5
    )
    stage = stage_in(tmp_path / "stage")
    figures = refine_preferences(stage, config=config, preferences=Named(folder, "p"), seed=0)
    made = read_dataset(stage.folder, "train")
    assert Dropped.read(stage.folder).reasons() == {
        "too many pairs have the longer response as chosen": 5,
        "its responses are more alike than max_similarity (0.9)": 1,
    }
    assert [r["fault"] for r in made].count(None) == 2
    (negative,) = [r for r in made if r["fault"] is not None]
    assert negative["label_source"] == "fault" and negative["rejected"] != negative["chosen"]
    assert figures == {
        "pairs": 3.0, "negatives": 1.0, "chosen_longer_share": 0.5, "dropped_rows": 6.0,
    }  # fmt: skip


def test_length_says_nothing_when_pairs_are_balanced():
    rows = [row(n, "x" * (1 + n % 4), "yy") for n in range(80)]  # 20 shorter, 20 equal, 40 longer
    dropped = Dropped()
    kept = [rows[place] for place in balanced_by_length(rows, range(80), 0, dropped)]
    longer = sum(len(r["chosen"][0]["content"]) > 2 for r in kept)
    shorter = sum(len(r["chosen"][0]["content"]) < 2 for r in kept)
    assert (longer, shorter, len(kept), len(dropped.rows)) == (20, 20, 60, 20)


def test_each_fault_comes_as_often_and_one_that_does_not_apply_leaves_its_turn():
    rows = [row(n, f"It is {n + 10} dollars. Come by. Thank you!", "no") for n in range(30)]
    made = list(with_faults(rows, range(30), RefineConfig(negatives=1.0), 0))
    faults = [r["fault"] for r in made]
    assert {faults.count(name) for name in CORRUPTIONS} == {10}
    no_number = [row(n, "Come by", "no", soft_label=0.6, margin=2.0) for n in range(3)]
    number = RefineConfig(negatives=1.0, faults=("wrong_number",))
    assert list(with_faults(no_number, range(3), number, 0)) == []
    made = list(with_faults(no_number, range(3), RefineConfig(negatives=1.0), 0))
    assert {r["fault"] for r in made} == {"rude_tone"}
    assert {(r["soft_label"], r["margin"]) for r in made} == {(1.0, 2.0)}
    assert made == list(with_faults(no_number, range(3), RefineConfig(negatives=1.0), 0))


def test_faults_by_hand():
    numbers = {wrong_number("Pay $1,240.50 now.", random.Random(seed)) for seed in range(200)}
    assert len(numbers) > 30 and "Pay $1,240.50 now." not in numbers
    for text in numbers:
        assert sum(a != b for a, b in zip(text, "Pay $1,240.50 now.", strict=True)) == 1
        assert not text.startswith("Pay $0")
    assert wrong_number("none here", random.Random(0)) is None
    steps = {skipped_step("Add 2. Then double. It is 8.", random.Random(s)) for s in range(50)}
    assert steps == {"Then double. It is 8.", "Add 2. It is 8."}
    assert skipped_step("Only one. ", random.Random(0)) is None
    for seed in range(20):
        rude = rude_tone("Please, take two. Thank you very much!", random.Random(seed))
        assert "take two." in rude and "hank" not in rude and "lease" not in rude
        assert len(rude) > len("take two.")
    assert rude_tone("  ", random.Random(0)) is None


# --- Labels of single responses, and graded ones. ------------------------------------------------


def write(tmp_path, records):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return SourceFile(path)


def test_thumbs_are_read_however_they_are_written(tmp_path):
    labels = [True, 0, 1, -1, "up", "down", "\U0001f44d", "\U0001f44e", "good", "Thumbs down"]
    records = [{"prompt": f"q{n}", "completion": "a", "label": x} for n, x in enumerate(labels)]
    records += [
        {"prompt": "q0", "completion": "a", "label": True},
        {"prompt": "q0", "completion": "a", "label": False},
        {"prompt": "q99", "completion": "a", "label": "so so"},
        {"prompt": "q98", "completion": "a" * 999, "label": True},
        {"prompt": "q97", "completion": ["a", "b"], "label": True},
        {"prompt": "q96", "completion": [assistant("a"), user("q"), assistant("b")], "label": True},
    ]
    reader = LabelReader(write(tmp_path, records), PreferenceFileConfig(max_characters=500))
    rows, report = list(reader), reader.report
    assert [row["label"] for row in rows] == [True, False] * 5
    reasons = {row["row"]: row["reason"] for row in report.dropped.rows}
    assert reasons[11] == "repeats an earlier row"
    assert reasons[12] == "an earlier row has the other label"
    assert "neither true nor false" in reasons[13]
    assert "max_characters (500)" in reasons[14]
    assert reasons[15] == "has 2 texts as its response; one is judged"
    assert reasons[16] == "'completion' has 3 messages; one response is judged"


def test_a_file_of_thumbs_becomes_a_dataset_and_pairs(tmp_path):
    records = [
        {"prompt": f"q{n}", "completion": f"a{n}{side}", "label": side == "good"}
        for n in range(60)
        for side in ("good", "bad")
    ]
    stage = stage_in(tmp_path / "labels")
    figures = import_labels(
        stage, config=PreferenceFileConfig(), file=write(tmp_path, records), data_seed=0
    )
    assert figures["train_rows"] + figures["test_rows"] == 120
    assert figures["liked_share"] == 0.5
    pairs = stage_in(tmp_path / "pairs")
    made = pair_labels(pairs, labels=Named(stage.folder, "labels"), pairs_per_prompt=2, seed=0)
    assert made["train_rows"] == figures["train_rows"] / 2
    for one in read_dataset(pairs.folder, "train"):
        n = one["prompt"][0]["content"][1:]
        assert one["chosen"][0]["content"] == f"a{n}good"
        assert one["rejected"][0]["content"] == f"a{n}bad"


def test_graded_labels_are_kept_as_margins(tmp_path):
    words = {"tie": 0.0, "slight": 1.0, "Clear": 2.0, "much better": 3.0, 1.5: 1.5}
    records = [
        {"prompt": f"q{n}", "chosen": "a", "rejected": "b", "margin": word}
        for n, word in enumerate(words)
    ]
    rows, _ = read_preferences(write(tmp_path, records))
    assert [row["margin"] for row in rows] == list(words.values())
    signed = [
        {"prompt": f"q{n}", "response_1": "a", "response_2": "b", "preference_strength": strength}
        for n, strength in enumerate((-3, 1, 2))
    ]
    rows, _ = read_preferences(write(tmp_path, signed))
    assert [(row["margin"], row["chosen"][0]["content"]) for row in rows] == [
        (3.0, "a"), (1.0, "b"), (2.0, "b"),
    ]  # fmt: skip


def test_columns_of_numbers_are_kept_where_a_setting_names_them(tmp_path):
    records = [
        {"prompt": f"q{n}", "chosen": "a", "rejected": "b", "sure": sure}
        for n, sure in enumerate((0.5, "0.75", "high", float("inf"), None))
    ]
    rows, report = read_preferences(write(tmp_path, records), PreferenceFileConfig(keep=("sure",)))
    assert [row["sure"] for row in rows] == [0.5, 0.75]
    assert report.dropped.reasons() == {
        "'sure' is text, not a number": 1,
        "'sure' is inf, not a finite number": 1,
        "'sure' is null, not a number": 1,
    }
    with pytest.raises(DataError, match="no column 'certain', which preferences"):
        read_preferences(write(tmp_path, records), PreferenceFileConfig(keep=("certain",)))


def test_a_kept_column_counts_as_used_and_may_miss_in_a_row(tmp_path):
    records = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b", "sure": n} for n in (1, 2)]
    del records[1]["sure"]
    rows, report = read_preferences(write(tmp_path, records), PreferenceFileConfig(keep=("sure",)))
    assert [row["sure"] for row in rows] == [1] and not report.columns_unused
    assert report.dropped.reasons() == {"has no column 'sure', which preferences.keep names": 1}
    for name in ("pair_id", "chosen", "row", "completion", "a"):
        with pytest.raises(ValidationError, match="cannot be kept"):
            PreferenceFileConfig(keep=(name,))


@pytest.mark.parametrize("weight", [float("inf"), float("nan"), -1.0, None])
def test_a_weight_of_a_pair_is_a_finite_number(weight):
    pair = EncodedPair({"pair_id": "p", "sure": weight}, "q", [1], [2], [3])
    with pytest.raises(DataError, match=r"sample_weights is 'sure'.*preferences\.keep"):
        pair_examples([pair], DPOConfig(sample_weights="sure"), "data")
