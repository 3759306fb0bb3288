"""Duplicates and contamination: what is found, what must not be, and which row stays."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from plumbline.data.records import assistant, user
from plumbline.dropped import Dropped
from sft.build.ledger import Ledger
from sft.build.passes import labels_of, run_passes
from sft.cleaning.steps import read_step
from sft.duplicates.contamination import Question, find_hit, index_of
from sft.duplicates.exact import exact_key, first_of_equals
from sft.duplicates.near import NearDuplicatesConfig, band_hashes, minima_of
from sft.duplicates.words import jaccard, numbers_of, order_similarity, shingles_of, words_of
from sft.sources import from_rows


def left_out(tmp_path, rows, *steps):
    """The rows that steps leave out, by number, with the row that each repeats."""
    dropped, configs = Dropped(), [read_step(step, n) for n, step in enumerate(steps, 1)]
    rows = [{"messages": messages, "form": "single_turn"} for messages in rows]
    run_passes(
        [from_rows(rows, "x")],
        configs,
        folder=tmp_path,
        ledger=Ledger(dropped, labels_of(configs)),
        share=0.1,
        data_seed=0,
    )
    return {row["row"]: row for row in dropped.rows}


def test_words_of_any_script():
    assert words_of("Don't PANIC, it's 42!") == ["don't", "panic", "it's", "42"]
    assert words_of("你好 world") == ["你", "好", "world"]
    assert "".join(words_of("ขอบคุณ")) == "ขอบคุณ"
    assert words_of("안녕 세계") == ["안녕", "세계"]


def test_shingles_are_words_or_three_characters():
    assert shingles_of("To be, or not") == ["to", "be", "or", "not"]
    assert shingles_of("今天天气好") == ["今天天", "天天气", "天气好"]
    assert shingles_of("好") == ["好"]
    assert shingles_of("用 Python 写代码吧") == ["用", "python", "写代码", "代码吧"]


def test_similarities_by_hand():
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 2 / 4
    assert jaccard(frozenset(), frozenset()) == 1.0
    # The longest common subsequence of ab and ba is one letter: 2 · 1 / 4.
    assert order_similarity(["thanks", "ok"], ["ok", "thanks"]) == 0.5
    assert numbers_of("3 apples, 1,000 pears and 2.5 kg") == ["1,000", "2.5", "3"]


def test_signatures_agree_as_often_as_sets_do():
    """Broder (1997): two minima agree with the probability of the sets' Jaccard similarity."""
    generator = random.Random(0)
    agree, true = [], []
    for _ in range(60):
        both = [f"w{generator.random()}" for _ in range(40)]
        first, second = ([f"w{generator.random()}" for _ in range(10)] for _ in range(2))
        agree.append(np.mean(minima_of([*both, *first]) == minima_of([*both, *second])))
        true.append(40 / 60)
    # 60 signatures of 128: the standard error of the mean is sqrt(2/3 · 1/3 / (60 · 128)) = 0.005.
    assert np.mean(agree) == pytest.approx(np.mean(true), abs=0.02)
    assert len(band_hashes(minima_of(["a", "b"]))) == 21


def test_exact_keys_see_roles_order_and_calls_and_not_case_or_space():
    def key(*messages):
        return exact_key({"messages": list(messages)})

    assert key(user("A  b"), assistant("C")) == key(user("a b\n"), assistant("c"))
    assert key(user("a"), assistant("b")) != key(user("b"), assistant("a"))
    assert key(user("ab"), assistant("c")) != key(user("a"), assistant("bc"))
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert key(user("a"), assistant("")) != key(user("a"), assistant("") | {"tool_calls": [call]})


def test_the_first_of_equal_keys():
    halves = np.dtype([("high", "<u8"), ("low", "<u8")])
    keys = np.array([(1, 2), (0, 9), (1, 2), (2, 1), (0, 9), (1, 2)], halves)
    assert first_of_equals(keys).tolist() == [0, 1, 0, 3, 1, 0]


SUM = "Sam has {} apples and buys {} more at the large market in town today"
LONG = "the quick brown fox jumps over the lazy dog near the old river bank every single morning"


def test_near_copies_are_left_out_for_the_first(tmp_path):
    rows = [
        [user("Tell me a story."), assistant(LONG)],
        [user("Tell me a story."), assistant(LONG.replace("lazy", "sleepy"))],
        [user("Tell me a story."), assistant(LONG.replace("quick", "fast") + "!")],
        [user("What is the capital?"), assistant("It is Paris, a city on the river Seine.")],
    ]
    out = left_out(tmp_path, rows, "near_duplicates")
    assert set(out) == {2, 3}
    assert out[2]["reason"] == "is a near copy of an earlier row"
    assert {row["detail"]["near"]["row"] for row in out.values()} == {1}


def test_what_looks_alike_and_says_something_else_stays(tmp_path):
    shuffled = " ".join(random.Random(0).sample(LONG.split(), len(LONG.split())))
    rows = [
        [user("q"), assistant(LONG)],
        [user("q"), assistant(shuffled)],  # the same words in another order
        [user("thanks ok"), assistant("ok")],
        [user("ok thanks"), assistant("ok")],  # too short to be judged
        [user(SUM.format(3, 4)), assistant("So he has 7 now")],
        [user(SUM.format(5, 6)), assistant("So he has 11 now")],
        [{"role": "system", "content": LONG}, user("How do I boil an egg in the morning?"),
         assistant("Put it into hot water for six minutes.")],
        [{"role": "system", "content": LONG}, user("Who painted the large hall in Florence?"),
         assistant("Nobody knows all of their names.")],
    ]  # fmt: skip
    assert left_out(tmp_path, rows, "near_duplicates") == {}
    again = tmp_path / "again"
    again.mkdir()
    out = left_out(again, rows, {"step": "near_duplicates", "same_numbers": False})
    assert set(out) == {6}


def test_chinese_is_compared_by_characters(tmp_path):
    text = "今天天气很好我们一起去公园散步然后在湖边吃午饭下午回家看书"
    rows = [
        [user("说说你的计划"), assistant(text)],
        [user("说说你的计划"), assistant(text.replace("午饭", "晚饭"))],
        [user("说说你的计划"), assistant("明天要下雨所以大家都留在家里写作业晚上再看一部电影吧")],
    ]
    assert set(left_out(tmp_path, rows, "near_duplicates")) == {2}


def test_a_copy_of_a_copy_is_left_out_only_for_a_row_that_stays(tmp_path):
    """A chain: each differs by few words from the one before, the last by many from the first."""
    words = [f"word{'abcdefghijklmnopqrstuvwxyz'[n]}" for n in range(20)]
    chain = []
    for step in range(6):
        changed = [f"other{w}" if n < 2 * step else w for n, w in enumerate(words)]
        chain.append([user("Please write the list of all the words"), assistant(" ".join(changed))])
    config = NearDuplicatesConfig(threshold=0.7)
    out = left_out(tmp_path, chain, {"step": "near_duplicates", "threshold": config.threshold})
    for number, row in out.items():
        kept = row["detail"]["near"]["row"]
        assert kept not in out
        texts = [" ".join(m["content"] for m in chain[n - 1]) for n in (number, kept)]
        assert jaccard(*(frozenset(shingles_of(t)) for t in texts)) >= 0.7
    # Of 28 words, 26 of 30 are common with the next, 24 of 32 with the one after, then 22 of 34.
    assert set(out) == {2, 3, 5, 6}


def test_copies_are_found_across_sources_and_the_held_out_row_stays(tmp_path):
    first = from_rows([{"messages": [user("a"), assistant("b")], "form": "single_turn"}], "train")
    second = from_rows([{"messages": [user("A"), assistant("b ")], "form": "single_turn"}], "test")
    second.split, dropped = "test", Dropped()
    configs = [read_step("exact_duplicates", 1)]
    run_passes(
        [first, second], configs, folder=tmp_path, share=0.1, data_seed=0,
        ledger=Ledger(dropped, [*labels_of(configs), "held-out prompts"]),
    )  # fmt: skip
    (row,) = dropped.rows
    assert (row["origin"], row["detail"]) == ("train", {"repeats": {"origin": "test", "row": 1}})


QUESTION = (
    "Natalia sold clips to forty eight of her friends in April and then she sold half as many "
    "clips in May"
)


def test_thirteen_words_in_common_with_an_evaluation_are_a_hit():
    index = index_of([Question("eval.jsonl, line 7", QUESTION)], 13, 10)
    thirteen = " ".join(QUESTION.split()[2:15])
    hit = find_hit(f"Here we go: {thirteen.upper()}; what now?", index)
    assert hit is not None
    assert hit.question.place == "eval.jsonl, line 7"
    assert hit.shared == thirteen.lower()
    twelve = " ".join(QUESTION.split()[2:14])
    assert find_hit(f"Here we go: {twelve}. What now?", index) is None


def test_short_questions_count_as_a_whole_and_common_wording_does_not():
    short = [Question("e, row 1", "What is the capital of France?")]
    assert find_hit("what is the capital of france", index_of(short, 13, 10)) is not None
    assert find_hit("He asked: what is the capital of France?", index_of(short, 13, 10)) is None
    frame = "please answer the following question with a single letter out of the four options"
    many = [Question(f"e, row {n}", f"{frame}: number{'abcdefghijkl'[n]}") for n in range(12)]
    assert find_hit(f"{frame}, now", index_of(many, 13, 10)) is None
    assert find_hit(f"{frame}, now", index_of(many, 13, 12)) is not None


def test_chinese_questions_are_found():
    question = "小明有五个苹果他又买了三个苹果请问他现在一共有多少个苹果"
    index = index_of([Question("e, row 1", question)], 13, 10)
    assert find_hit(f"问题：{question[4:20]}？", index) is not None
    assert find_hit("小明今天去学校上课，然后回家吃饭。", index) is None


def test_contaminated_rows_are_left_out_with_the_hit(tmp_path):
    evaluation = tmp_path / "eval.jsonl"
    evaluation.write_text(json.dumps({"question": QUESTION + "?", "answer": "72"}))
    rows = [
        [user(f"Solve this. {QUESTION}. How many?"), assistant("72")],
        [user("Who sold clips?"), assistant("Natalia did, in April.")],
    ]
    out = left_out(tmp_path, rows, {"step": "contamination", "against": [str(evaluation)]})
    assert set(out) == {1}
    assert out[1]["reason"] == "holds what the evaluation eval.jsonl asks"
    assert out[1]["detail"]["evaluation"] == "eval.jsonl, line 1"
    assert out[1]["detail"]["shared"].startswith("natalia sold clips to forty eight")


def test_the_identity_of_decontamination_is_the_evaluation_s_content(tmp_path):
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": text}))

    def identity(name):
        step = {"step": "contamination", "against": [str(tmp_path / f"{name}.jsonl")]}
        return read_step(step, 1).identity()

    assert identity("a") == identity("b") != identity("c")
