"""Environments: a customer whose every request can be judged, and a calculator that is safe."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.data.records import assistant, problem_with, user
from plumbline.runs.calls import defer, describe, resolve
from plumbline.world.clerks import Style, answer
from plumbline.world.data import prompts as world_prompts
from plumbline.world.gold import GoldUtility, gold_score
from plumbline.world.requests import read
from plumbline.world.shop import Shop
from rl.environments import Calculator, HelpDeskCustomer, worked_out

SHOP = Shop.from_seed(0)
PROMPTS = world_prompts(0, 90, "heldout")


def dialogue(prompt, customer, style, turns=6):
    """A clerk's dialogue with a customer, until the customer leaves."""
    messages = list(prompt)
    for _ in range(turns):
        messages.append(assistant(answer(SHOP, messages, style)))
        said = customer.reply(messages)
        if said is None:
            break
        messages.append(said)
    return messages


# --- The customer. ------------------------------------------------------------------------------


def test_every_turn_of_a_customer_can_be_judged():
    """A courteous clerk who tells the truth is right to the last, whatever is asked."""
    customer, lengths, kinds = HelpDeskCustomer(0), set(), set()
    for prompt in PROMPTS:
        messages = dialogue(prompt, customer, Style())
        assert problem_with(messages) is None
        for place in range(len(prompt), len(messages), 2):
            request = read(messages[:place])
            assert request is not None
            kinds.add((read(prompt).kind, request.kind))
            score = gold_score(SHOP, messages[:place], messages[place]["content"])
            assert score.correct == 1
            assert score.complete == 1
        lengths.add((len(messages) - len(prompt) + 1) // 2)
    assert lengths >= {1, 2, 3, 4}  # some leave at once, some stay
    assert kinds == {
        ("facts", "facts"), ("facts", "sum"), ("sum", "facts"), ("sum", "sum"), ("order", "order"),
    }  # fmt: skip


def test_who_got_no_answer_asks_for_the_same_again():
    customer = HelpDeskCustomer(0)
    for prompt in PROMPTS:
        messages = [*prompt, assistant("The weather is fine.")]
        said = customer.reply(messages)
        assert said is not None
        assert read([*messages, said]) == read(prompt)


def test_a_changed_order_is_another_order_and_the_old_answer_is_wrong():
    customer, changed = HelpDeskCustomer(0), 0
    for prompt in PROMPTS:
        request = read(prompt)
        if request.kind != "order":
            continue
        right = answer(SHOP, prompt, Style())
        said = customer.reply([*prompt, assistant(right)])
        if said is None:
            continue
        changed += 1
        now = [*prompt, assistant(right), said]
        assert (read(now).count != request.count) != (read(now).day != request.day)
        assert gold_score(SHOP, now, right).correct < 1
        assert gold_score(SHOP, now, answer(SHOP, now, Style())).correct == 1
    assert changed > 10


def test_a_customer_says_the_same_to_the_same():
    one, other, elsewhere = HelpDeskCustomer(0), HelpDeskCustomer(0), HelpDeskCustomer(1)
    said = [[c.reply([*p, assistant("Hm.")]) for p in PROMPTS] for c in (one, other, elsewhere)]
    assert said[0] == said[1] == [one.reply([*p, assistant("Hm.")]) for p in PROMPTS]
    assert said[0] != said[2]


def test_a_customer_of_another_world_leaves():
    talk = [user("What is the capital of France?"), assistant("Paris.")]
    assert HelpDeskCustomer(0).reply(talk) is None


@pytest.mark.parametrize("function", [HelpDeskCustomer, Calculator])
def test_environments_can_be_deferred_and_sent_to_processes(function):
    seed = {"data_seed": 3} if function is HelpDeskCustomer else {}
    call = defer(function, turns=2, **seed)
    assert describe(call) != describe(defer(function, turns=4, **seed))
    made = resolve(call)
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - of our own making
    talk = [*PROMPTS[0], assistant("<calc>6*7</calc>")]
    assert again.turns == made.turns == 2
    assert again.reply(talk) == made.reply(talk)


def test_the_gold_utility_judges_the_last_turn():
    prompt = [user("How much are the saws?")]
    before = [*prompt, assistant("Hm."), user("Sorry, I asked: what do the saws cost?")]
    good = f"Certainly. The saws cost ${SHOP['saws'].price}. Thank you!"
    utility = GoldUtility(0)
    assert utility.score([before], [good]) == utility.score([prompt], [good]) == [4.5]


# --- The calculator. ----------------------------------------------------------------------------


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
    assert worked_out(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "no sum that I can read"),
        ("2 +", "no sum that I can read"),
        ("(" * 90, "no sum that I can read"),
        ("1/0", "divides by nought"),
        ("5 % (2-2)", "divides by nought"),
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
        ("1\x00", "no sum that I can read"),
    ],
)
def test_what_is_not_worked_out_says_why(expression, reason):
    said = worked_out(expression)
    assert said.startswith("Error: ")
    assert reason in said
    assert not Path("/tmp/never").exists()


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="0123456789.+-*/%() ej_abc\n", max_size=80) | st.text(max_size=40))
def test_no_text_does_harm(text):
    start = time.perf_counter()
    said = worked_out(text)
    assert time.perf_counter() - start < 1
    assert len(said) < 120
    assert said.isprintable()


@settings(deadline=None, max_examples=100)
@given(a=st.integers(-999, 999), b=st.integers(-999, 999), c=st.integers(1, 99))
def test_whole_numbers_as_python_has_them(a, b, c):
    assert worked_out(f"{a} + {b} * {c} - ({a}) // {c}") == str(a + b * c - a // c)


def test_a_calculator_answers_the_last_marks_and_ends_without():
    calculator = Calculator()
    asked = [user("What is 3 times 4, plus 1?")]
    talk = [*asked, assistant("<calc>3*4</calc> and then <calc>3*4\n+1</calc>")]
    assert calculator.reply(talk) == {"role": "tool", "content": worked_out("3*4\n+1")}
    assert calculator.reply([*asked, assistant("<calc>3*4+1</calc>")])["content"] == "13"
    assert calculator.reply([*asked, assistant("It is 13.")]) is None
    assert calculator.reply([*asked, assistant("<calc>3*4")]) is None
