"""Environments: a calculator that is safe."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.data.records import assistant, user
from plumbline.runs.calls import defer, describe, resolve
from rl.environments import Calculator, calculate


def test_a_calculator_can_be_deferred_and_sent_to_processes():
    call = defer(Calculator, max_turns=2)
    assert describe(call) != describe(defer(Calculator, max_turns=4))
    calculator = resolve(call)
    again = pickle.loads(pickle.dumps(calculator))  # noqa: S301 - of our own making
    assert again.max_turns == calculator.max_turns == 2
    assert again.reply([assistant("<calc>6*7</calc>")])["content"] == "42"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*(3+4)", "84"),
        (" 2 + 3 * 4 ", "14"),
        ("7 // 2", "3"),
        ("-7 // 2", "-4"),
        ("7 % 4", "3"),
        ("1/4", "0.25"),
        ("-1/3", "-0.333333"),
        ("0.1 + 0.2", "0.3"),  # exact, unlike floating point
        ("1/3*3", "1"),
        ("999999999999999 + 1", "1000000000000000"),
        ("+(-2)", "-2"),
        ("1/8000000", "0"),
    ],
)
def test_sums_by_hand(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "not a sum that I can read"),
        ("2 +", "not a sum that I can read"),
        ("(" * 90, "not a sum that I can read"),
        ("1/0", "divides by zero"),
        ("5 % (2-2)", "divides by zero"),
        ("9**9**9", "only numbers"),
        ("1 << 9999", "only numbers"),
        ("True + 1", "only numbers"),
        ("2j", "only numbers"),
        ("'a'*9", "only numbers"),
        ("[1]*9", "only numbers"),
        ("x", "only numbers"),
        ("(lambda: 1)()", "only numbers"),
        ("().__class__", "only numbers"),
        ("__import__('os').system('touch /tmp/never')", "only numbers"),
        ("(y := 3)", "only numbers"),
        ("10000000000 * 10000000000", "exceed 1e+15"),
        ("1e999", "exceed 1e+15"),
        ("1e-300", "exceed 1e+15"),
        ("1+" * 200 + "1", "more than 200 characters"),
        ("1\x00", "not a sum that I can read"),
    ],
)
def test_what_is_not_worked_out_says_why(expression, reason):
    result = calculate(expression)
    assert result.startswith("Error: ")
    assert reason in result
    assert not Path("/tmp/never").exists()


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="0123456789.+-*/%() ej_abc\n", max_size=80) | st.text(max_size=40))
def test_no_text_does_harm(text):
    start = time.perf_counter()
    result = calculate(text)
    assert time.perf_counter() - start < 1
    assert len(result) < 120
    assert result.isprintable()


@settings(deadline=None, max_examples=100)
@given(a=st.integers(-999, 999), b=st.integers(-999, 999), c=st.integers(1, 99))
def test_whole_numbers_as_python_has_them(a, b, c):
    assert calculate(f"{a} + {b} * {c} - ({a}) // {c}") == str(a + b * c - a // c)


def test_a_calculator_answers_the_last_marks_and_ends_without():
    calculator = Calculator()
    asked = [user("What is 3 times 4, plus 1?")]
    talk = [*asked, assistant("<calc>3*4</calc> and then <calc>3*4\n+1</calc>")]
    assert calculator.reply(talk) == {"role": "tool", "content": calculate("3*4\n+1")}
    assert calculator.reply([*asked, assistant("<calc>3*4+1</calc>")])["content"] == "13"
    assert calculator.reply([*asked, assistant("It is 13.")]) is None
    assert calculator.reply([*asked, assistant("<calc>3*4")]) is None
