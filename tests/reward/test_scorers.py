"""Scorers that are rules, answers, code, judges and sums: worked by hand, and refused by name."""

from __future__ import annotations

import json
import math
import time

import pytest

from plumbline.data.checkers import JsonObject, Pattern
from plumbline.data.records import user
from plumbline.errors import ConfigError, DataError, ModelError
from reward.scorers import code_output
from reward.scorers.answers import AnswerScorer, contains, exact, numeric
from reward.scorers.both_orders import BothOrdersScorer
from reward.scorers.cached import CachedScorer
from reward.scorers.code_output import CodeOutputScorer, Limits, code_in, run_python
from reward.scorers.rules import FormatScorer, LengthScorer, PatternScorer
from reward.scorers.weighted_sum import WeightedSum
from reward.text_scorer import batches_by_tokens


def prompt(text="Question"):
    return [user(text)]


def scores(scorer, *responses, question="Question"):
    return scorer.score([prompt(question)] * len(responses), responses)


@pytest.fixture
def answers(tmp_path):
    def write(*rows):
        file = tmp_path / "answers.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return write


def test_length_by_hand():
    scorer = LengthScorer(at_least=2, at_most=4)
    #                        1 of 2 words: -1/2; 6 words: -(6 - 4) / 4
    assert scores(scorer, "one", "one two", "a b c d", "a b c d e f") == [-0.5, 0, 0, -0.5]
    assert scores(LengthScorer(at_most=10, unit="characters"), "x" * 25) == [-1.5]
    with pytest.raises(ConfigError, match="not a range"):
        LengthScorer(at_least=5, at_most=4)


def test_pattern_counts_up_to_its_limit():
    assert scores(PatternScorer(r"^- ", at_most=2), "none", "- a", "- a\n- b\n- c") == [0, 1, 2]
    with pytest.raises(ConfigError, match="not a regular expression"):
        PatternScorer("(")


def test_format_is_right_or_wrong():
    scorer = FormatScorer(JsonObject(["answer"]))
    assert scores(scorer, '{"answer": 1}', '{"other": 1}', "answer: 1") == [1, 0, 0]
    assert scores(FormatScorer(Pattern("^Answer: ")), "So.\nAnswer: 4", "4") == [1, 0]


@pytest.mark.parametrize(
    ("compare", "response", "answer", "agrees"),
    [
        (exact, " Paris. ", "paris", True),
        (exact, "It is Paris", "Paris", False),
        (numeric, "That makes 1,250.0 in all", "1250", True),
        (numeric, "no number", "no number", False),
        (contains, "It is PARIS, of course", "Paris", True),
        (contains, "Parisian", "Paris", False),
    ],
)
def test_answers_are_compared(compare, response, answer, agrees):
    assert compare(response, answer) is agrees


def test_a_checkable_answer(answers):
    file = answers({"prompt": "3 + 4?", "reference": "7"}, {"prompt": "Capital?", "reference": "A"})
    scorer = AnswerScorer(file, "numeric")
    assert scores(scorer, "It is 7.", "It is 8", question="3 + 4?") == [1, 0]
    assert "has no answer" in scorer.problem_with(prompt("1 + 1?"))
    with pytest.raises(ModelError, match="'1 \\+ 1\\?' has no answer"):
        scores(scorer, "2", question="1 + 1?")


def test_a_file_without_answers_is_refused(answers):
    with pytest.raises(DataError, match="no row with a prompt and a reference"):
        AnswerScorer(answers({"prompt": "3 + 4?"}))


def test_code_is_run_and_its_output_compared(answers):
    file = answers(
        {"prompt": "Print 1 to 3", "reference": "1\n2\n3"},
        {"prompt": "Write double", "reference": "assert double(4) == 8"},
    )
    scorer = CodeOutputScorer(file)
    right = "Sure:\n```python\nfor n in (1, 2, 3):\n    print(n)\n```\nDone."
    assert scores(scorer, right, "print(1)", "no code!", question="Print 1 to 3") == [1, 0, 0]
    body = "```py\ndef double(x):\n    return {} * x\n```"
    assert scores(scorer, body.format(2), body.format(3), question="Write double") == [1, 0]
    assert code_in("```\na\n```\nand\n```python\nb\n```") == "b\n"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("while True: pass", r"took longer|signal"),
        ("x = bytearray(2 << 30)", "ended with status 1"),
        ("open('big', 'wb').write(b'x' * (64 << 20))", r"signal|status 1"),
        ("import time; time.sleep(60)", "took longer"),
        ("while True: print('x' * 1000)", r"took longer|signal|status|printed more"),
    ],
)
def test_code_has_limits(code, problem):
    import re

    began = time.monotonic()
    outcome = run_python(code, Limits(seconds=2, memory_mb=256))
    assert outcome.problem is not None and re.search(problem, outcome.problem)
    assert time.monotonic() - began < 10


#: A user who is not root, for whom a process ends as processes are counted.
_A_PROCESS_ENDS = """\
import os
class Ended:
    name = "123"
    def is_dir(self): return True
    def stat(self, **options): raise FileNotFoundError(2, "No such file or directory")
os.geteuid, os.scandir = lambda: 1000, lambda folder: [Ended()]
"""


def test_code_is_right_where_another_process_ends_meanwhile(answers, monkeypatch):
    monkeypatch.setattr(code_output, "_START", _A_PROCESS_ENDS + code_output._START)
    scorer = CodeOutputScorer(answers({"prompt": "Print 1", "reference": "1"}))
    assert scores(scorer, "print(1)", question="Print 1") == [1]


def test_code_sees_nothing_of_ours(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "value")
    outcome = run_python("import os; print(dict(os.environ).get('SECRET'))", Limits())
    assert outcome.output.strip() == "None"
    seen = run_python("import os; print(sorted(os.listdir('.')))", Limits()).output
    assert seen.strip() == "['output', 'program.py']"


class Judge:
    """Prefers the longer response, and in a tie the first: a position bias."""

    concurrency = 2

    def compare(self, prompt, first, second):
        if first == "unreadable" or second == "unreadable":
            return None
        return "second" if len(second) > len(first) else "first"


def test_a_judge_sees_both_orders(answers):
    file = answers({"prompt": "Question", "reference": "four"})
    scorer = BothOrdersScorer(Judge(), file)
    # The longer wins both; one as long wins only where it stands first; the same ties unasked.
    assert scores(scorer, "longer", "abcd", "no", "four") == [1.0, 0.5, 0.0, 0.5]
    assert scores(scorer, "longer", "unreadable") == [1.0, 0.5]
    assert scorer.without_verdict == 2
    with pytest.raises(ModelError, match="no verdict on any of 1 pairs"):
        scores(scorer, "unreadable")


class Constant:
    def __init__(self, value, name="constant"):
        self.value, self.name, self.calls = value, name, []

    def score(self, prompts, responses):
        self.calls.append(list(responses))
        return [self.value * len(text) for text in responses]


def test_a_weighted_sum_knows_its_terms():
    total = WeightedSum(["a", "b"], [2.0, -0.5], [Constant(1.0), Constant(10.0)])
    # "xy": 2 * 2 - 0.5 * 20; "xyz": 2 * 3 - 0.5 * 30
    assert scores(total, "xy", "xyz") == [-6.0, -9.0]
    assert total.term_means == {"a": 5.0, "b": -12.5}
    with pytest.raises(ModelError, match="'b' gives no finite score to 1 of 1"):
        scores(WeightedSum(["a", "b"], [1, 1], [Constant(1.0), Constant(math.nan)]), "x")
    for names, weights in ((["a", "a"], [1, 1]), (["a", "b"], [0, 0]), (["a"], [1, 1])):
        with pytest.raises(ConfigError):
            WeightedSum(names, weights, [Constant(1.0), Constant(2.0)])


def test_scores_are_kept_by_content(tmp_path):
    inner = Constant(1.0)
    cached = CachedScorer(inner, "model-1", file=tmp_path / "scores.sqlite")
    assert scores(cached, "a", "bb", "a") == [1, 2, 1]
    assert scores(cached, "bb", "ccc") == [2, 3]
    assert inner.calls == [["a", "bb"], ["ccc"]]
    assert (cached.hits, cached.misses) == (2, 3)
    # Another process with the same file, and then another model: its scores are its own.
    again, other = Constant(99.0), Constant(5.0)
    assert scores(CachedScorer(again, "model-1", file=tmp_path / "scores.sqlite"), "ccc") == [3]
    assert again.calls == []
    assert scores(CachedScorer(other, "model-2", file=tmp_path / "scores.sqlite"), "ccc") == [15]
    # The prompt counts, too.
    assert cached.score([prompt("another")], ["ccc"]) == [3] and inner.calls[-1] == ["ccc"]
    (tmp_path / "no").write_text("this is no database, and long enough to be seen as none" * 20)
    with pytest.raises(DataError, match="cannot be used as a file of scores"):
        CachedScorer(inner, "model-1", file=tmp_path / "no")


def test_batches_by_tokens():
    batches = list(batches_by_tokens([5, 1, 3, 30, 2], most_rows=3, most_tokens=9))
    # In order of length 1, 2, 3, 5, 30: three rows at once; 5 would be a fourth; 30 is alone.
    assert batches == [[1, 4, 2], [0], [3]]
    assert list(batches_by_tokens([4, 4, 4], most_rows=9, most_tokens=8)) == [[0, 1], [2]]
    assert list(batches_by_tokens([], 3, 9)) == []
