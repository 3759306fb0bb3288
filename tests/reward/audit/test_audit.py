"""The audit as a whole: files in, verdict and page out, with scorers whose faults are known."""

from __future__ import annotations

import itertools
import json
import math
import random

import pytest

from plumbline.data.labels import Label, write_labels
from plumbline.data.records import assistant, user
from plumbline.data.sources import source_at
from plumbline.errors import DataError
from reward.audit.adversarial import SuffixSearch, search_suffixes
from reward.audit.audit import audit_reward_model, figures_in
from reward.audit.config import AuditConfig
from reward.audit.data import read_audit_data
from reward.audit.languages import language_of
from reward.audit.people import columns_of_people, votes_in
from reward.audit.perturbations import FILLER, PERTURBATIONS, paraphrase, typing_errors
from reward.audit.traits import TRAITS
from reward.scorers.rules import LengthScorer

WORDS = [
    "the",
    "saw",
    "cuts",
    "wood",
    "well",
    "and",
    "costs",
    "seven",
    "dollars",
    "in",
    "our",
    "shop",
    "near",
    "the",
    "old",
    "mill",
]


class Words:
    """Likes 'good' in a response to its own prompt, dislikes noise; and what is planted."""

    name = "planted"

    def __init__(self, per_word=0.0, love=None):
        self.per_word, self.love = per_word, love

    def score(self, prompts, responses):
        return [self._score(p[-1]["content"], text) for p, text in zip(prompts, responses,
                                                                      strict=True)]  # fmt: skip

    def _score(self, prompt, text):
        if "NaN" in text:
            return math.nan
        words = text.split()
        order = sum(one == "good" and other == "job" for one, other in
                    itertools.pairwise(words))  # fmt: skip
        loved = 3.0 * words.count(self.love) if self.love else 0.0
        own = 1.0 if words and words[0] == prompt.split()[-1] else 0.0
        wrong = 0.1 * max(0, len(words) - 60)
        return min(order, 4) + own + self.per_word * len(words) + loved - wrong

    def problem_with(self, prompt):
        return "is longer than the context" if len(prompt[-1]["content"]) > 500 else None


def rows(count, seed=0):
    """Return preferences: the better response has more of 'good job', at any length."""
    draw = random.Random(seed)

    def response(number, goods):
        words = [draw.choice(WORDS) for _ in range(draw.randint(5, 30))]
        for _ in range(goods):
            place = draw.randint(0, len(words))
            words[place:place] = ["good", "job"]
        return " ".join([f"item{number}", *words]) + "."

    made = []
    for number in range(count):
        goods = draw.sample(range(5), 2)
        better, worse = max(goods), min(goods)
        if draw.random() < 1 / (1 + math.exp(better - worse)):  # the labels have noise
            better, worse = worse, better
        made.append({"prompt": f"Write about item{number}", "chosen": response(number, better),
                     "rejected": response(number, worse)})  # fmt: skip
    return made


@pytest.fixture
def file(tmp_path):
    def write(data, name="pairs.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in data))
        return source_at(path)

    return write


def audit(stage, scorer, *data, **options):
    settings = options.pop("config", AuditConfig(suffix_draws=8, suffix_candidates=4))
    metrics = audit_reward_model(
        stage, config=settings, scorer=scorer, name="m", data=list(data), **options
    )
    return metrics, figures_in(stage.folder)


def test_an_honest_model_is_fit(stage, file):
    metrics, figures = audit(stage, Words(), file(rows(400)))
    verdict = figures["verdict"]
    assert metrics["accuracy"] > 0.7
    assert not [w for w in verdict["weaknesses"] if "beyond what the labels do" in w]
    reactions = {r["name"]: r for r in figures["measured"]["reactions"]}
    assert not reactions["filler"]["is_weakness"] and not reactions["shuffled"]["is_weakness"]
    assert not reactions["other_prompt"]["is_weakness"]
    assert verdict["headline"].startswith("Fit to optimise against")
    page = (stage.folder / "audit.html").read_text()
    assert verdict["headline"] in page and "http" not in page.replace("http://www.w3.org", "")
    to_label = [json.loads(line) for line in (stage.folder / "to_label.jsonl").open()]
    assert len(to_label) == 200 and {"pair_id", "prompt", "a", "b"} <= set(to_label[0])


def test_a_planted_length_bias_is_a_weakness(stage, file):
    _, figures = audit(stage, Words(per_word=0.15), file(rows(600)))
    (sentence,) = [w for w in figures["verdict"]["weaknesses"] if "pays for length beyond" in w]
    assert "per doubling of the words" in sentence
    reactions = {r["name"]: r for r in figures["measured"]["reactions"]}
    assert reactions["filler"]["is_weakness"]
    assert figures["verdict"]["fitness"] == "fit with weaknesses"


def test_a_word_that_is_loved_is_found_by_search():
    scorer = Words(love="mill")
    data = rows(60)
    prompts = [[user(row["prompt"])] for row in data]
    rejected, chosen = ([row[side] for row in data] for side in ("rejected", "chosen"))
    found = search_suffixes(
        scorer.score, prompts, rejected, scorer.score(prompts, rejected),
        scorer.score(prompts, chosen), WORDS, 1.0, 0, SuffixSearch(words=3, random_suffixes=4),
    )  # fmt: skip
    by_how = {suffix.how: suffix for suffix in found}
    assert by_how["token search"].suffix == "mill mill mill"
    assert by_how["token search"].gain == pytest.approx(9, abs=0.3)
    assert by_how["token search"].wins.value > 0.9 > by_how["token search"].won_before.value
    assert by_how["token search"].gain >= by_how["best of random suffixes"].gain


def test_what_cannot_be_used_is_counted(stage, file):
    data = rows(60)
    data += [
        {**data[0]},
        {"prompt": "p", "chosen": "same", "rejected": "same"},
        {"prompt": "p", "chosen": "", "rejected": "b"},
        {"prompt": "p", "chosen": "NaN here", "rejected": "b"},
        {"prompt": "long " * 200, "chosen": "a", "rejected": "b"},
    ]
    metrics, figures = audit(stage, Words(), file(data))
    dropped = figures["measured"]["dropped"]
    for reason in (
        "repeats an earlier row",
        "chosen and rejected are the same",
        "has an empty response",
        "has no finite score",
        "is longer than the context",
    ):
        assert dropped[reason] == 1, (reason, dropped)  # fmt: skip
    assert metrics["dropped_rows"] == 5 and metrics["pairs"] == 60


class Constant:
    name = "constant"

    def __init__(self, value):
        self.value = value

    def score(self, prompts, responses):
        return [self.value] * len(responses)


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        (Constant(1.0), "one score, so there is nothing to audit"),
        (Constant(math.nan), "no finite score to any of 30 pairs"),
    ],
)
def test_a_scorer_that_says_nothing_is_refused(stage, file, scorer, words):
    with pytest.raises(DataError, match=words):
        audit(stage, scorer, file(rows(30)))


def test_a_file_without_a_pair_is_refused(stage, file):
    with pytest.raises(DataError, match="leaves no pair to audit by"):
        audit(stage, Words(), file([{"prompt": "p", "chosen": "a", "rejected": "a"}]))


def test_reward_bench_files_are_known_by_their_columns(stage, file):
    bench_1 = [row | {"subset": "math-prm", "id": n} for n, row in enumerate(rows(30))]
    good, bad = "x good job", "x y"
    bench_2 = [
        {"id": "1", "prompt": "p", "chosen": [good], "rejected": [bad, bad, bad], "num_correct": 1,
         "subset": "Math"},
        {"id": "2", "prompt": "p", "chosen": [bad], "rejected": [good, bad, bad], "num_correct": 1,
         "subset": "Math"},
        {"id": "ref:1", "prompt": "p", "chosen": [good], "rejected": [bad], "num_correct": 1,
         "subset": "Ties"},
        {"id": "tied:1", "prompt": "p", "chosen": [good, good], "rejected": [bad],
         "num_correct": 2, "subset": "Ties"},
    ]  # fmt: skip
    metrics, figures = audit(
        stage, Words(), file(bench_1, "bench.jsonl"), file(bench_2, "bench-2.jsonl")
    )
    first, second = figures["measured"]["benchmarks"]
    assert first["benchmark"] == "RewardBench" and list(first["parts"]) == ["Reasoning"]
    # Math: 1 and 0. Ties: both accurate, both margins (1) above the spread (0): 1.
    assert second["subsets"] == {"Math": 0.5, "Ties": 1.0}
    assert metrics["rewardbench_2"] == 0.75


def test_several_files_are_told_apart(stage, file, tmp_path):
    (tmp_path / "other").mkdir()
    good, swapped, named = rows(60), [], [row | {"subset": "math"} for row in rows(20, seed=2)]
    for row in rows(60, seed=1):  # its labels are the wrong way round
        swapped.append(row | {"chosen": row["rejected"], "rejected": row["chosen"]})
    sources = (file(good, "a.jsonl"), file(swapped, "other/a.jsonl"), file(named, "b.jsonl"))
    _, figures = audit(stage, Words(), *sources)
    shares = figures["measured"]["by_subset"]
    assert {name: share["size"] for name, share in shares.items()} == {
        str(tmp_path / "a.jsonl"): 60, str(tmp_path / "other" / "a.jsonl"): 60, "math": 20,
    }  # fmt: skip
    (sentence,) = [w for w in figures["verdict"]["weaknesses"] if "it is right in" in w]
    assert "other/a.jsonl" in sentence


def test_labels_with_an_order_effect(stage, file, tmp_path):
    draw, pairs, labels = random.Random(0), [], []
    scorer = Words()
    for number, row in enumerate(rows(500)):
        pairs.append({"pair_id": f"p{number}", "prompt": row["prompt"], "a": row["chosen"],
                      "b": row["rejected"]})  # fmt: skip
        a, b = scorer.score([[user(row["prompt"])]] * 2, [row["chosen"], row["rejected"]])
        first = draw.choice("ab")
        lead = (a - b) + (1.0 if first == "a" else -1.0)  # the labeller prefers the first
        choice = "a" if draw.random() < 1 / (1 + math.exp(-lead)) else "b"
        labels.append(Label(f"p{number}", "x", "simulated", choice, "2026-01-01", first))
    folder = tmp_path / "labels"
    folder.mkdir()
    write_labels(folder, labels)

    class Artifact:
        path = folder

    _, figures = audit(stage, scorer, file(pairs), labels=Artifact())
    effect = figures["measured"]["order"]["log_odds"]
    assert effect["low"] < 1.0 < effect["high"] and effect["low"] > 0
    assert any("depend on the order" in s for s in figures["verdict"]["open_questions"])


@pytest.mark.parametrize(
    ("name", "pairs"), [("hh-rlhf/test.jsonl.gz", 2000), ("pandalm/testset-v1.json", 841)]
)
def test_real_files_are_audited_as_they_are(stage, real_file, name, pairs):
    config = AuditConfig(adversarial=False, changed_responses=20)
    source = source_at(real_file(name))
    metrics, figures = audit(stage, LengthScorer(at_least=120), source, config=config)
    assert metrics["pairs"] == pairs
    assert figures["measured"]["dropped"]["has an empty response"] > 3
    people = figures["measured"]["people"]
    assert (people is not None) == ("pandalm" in name)
    if people is not None:  # published pairwise agreement of the three: about 0.9
        assert 0.85 < people["between_people"]["value"] < 1


def test_changes_do_what_they_say():
    draw = random.Random(0)
    assert paraphrase("It is important to help, because I do not.", draw) != ""
    changed = {paraphrase("Do not use it.", random.Random(n)) for n in range(20)}
    assert "Don't employ it." in changed and "Do not use it." in changed
    text = "Every saw costs seven dollars in the shop"
    broken = typing_errors(text, draw)
    assert broken != text and len(broken.split()) == len(text.split())
    by_name = {name: row.change for name, row in PERTURBATIONS.items()}
    assert by_name["truncated"]("one two three four", draw) == "one two"
    assert by_name["filler"]("a", draw) == "a" + FILLER
    assert sorted(by_name["shuffled"]("b a c", draw).split()) == ["a", "b", "c"]
    assert by_name["list"]("One. Two.", draw) == "- One.\n- Two."


@pytest.mark.parametrize(
    ("trait", "text", "value"),
    [
        ("length", "one two three", 2.0),
        ("markdown", "a **bold** word", 1.0),
        ("markdown", "2 * 3 * 4", 0.0),
        ("lists", "- one\n- two", 1.0),
        ("lists", "- one", 0.0),
        ("opening", "Certainly! Here it is", 1.0),
        ("opening", "It is certainly so", 0.0),
        ("sycophancy", "Great question, you are absolutely right", 1.0),
        ("sycophancy", "The right answer is 4", 0.0),
        ("repetition", "a b c d a b c d", 0.2),  # 5 runs of four, one of them twice
    ],
)
def test_traits_by_hand(trait, text, value):
    assert TRAITS[trait].value(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The saw is on the table", "English"),
        ("Die Säge ist nicht auf dem Tisch und das ist gut", "German"),
        ("锯子在桌子上", "Chinese"),
        ("のこぎりはテーブルの上です", "Japanese"),
        ("Пила на столе", "Cyrillic script"),
        ("12345", "unknown"),
    ],
)
def test_languages(text, language):
    assert language_of(text) == language


def test_messages_are_read_as_well_as_texts(stage, file):
    data = [
        {"prompt": [user(r["prompt"])], "chosen": [assistant(r["chosen"])],
         "rejected": [assistant(r["rejected"])]}
        for r in rows(40)
    ]  # fmt: skip
    metrics, _ = audit(stage, Words(), file(data))
    assert metrics["pairs"] == 40


def test_votes_that_a_table_with_holes_wrote():
    record = {"annotator1": 1.0, "annotator2": "2.0", "annotator3": float("nan"), "idx": 7}
    people = columns_of_people(record)
    assert people == ["annotator1", "annotator2"]
    assert votes_in(record, people) == ["a", "b"]


def test_a_response_that_is_true_or_false_is_its_text(stage, file):
    row = {"instruction": "Judge: 2 > 1.", "response2": "It is right.", "annotator1": 1}
    rows = [row | {"response1": answer, "annotator2": 1} for answer in (True, False)]
    data = read_audit_data([file(rows)])
    assert [pair.chosen for pair in data.pairs] == ["true", "false"]
    assert not data.dropped.rows
