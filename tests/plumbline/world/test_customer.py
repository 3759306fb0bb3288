"""The help desk's customer: whose every request can be judged."""

from __future__ import annotations

import pickle

from plumbline.data.records import assistant, problem_with, user
from plumbline.runs.calls import defer, describe, resolve
from plumbline.world.clerks import Style, answer
from plumbline.world.customer import HelpDeskCustomer
from plumbline.world.data import prompts as world_prompts
from plumbline.world.gold import GoldUtility, gold_score
from plumbline.world.requests import read
from plumbline.world.shop import Shop

SHOP = Shop.from_seed(0)
PROMPTS = world_prompts(0, 90, "heldout")


def dialogue(prompt, customer, style, turns=6):
    """A clerk's dialogue with a customer, until the customer leaves."""
    messages = list(prompt)
    for _ in range(turns):
        messages.append(assistant(answer(SHOP, messages, style)))
        reply = customer.reply(messages)
        if reply is None:
            break
        messages.append(reply)
    return messages


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
        reply = customer.reply(messages)
        assert reply is not None
        assert read([*messages, reply]) == read(prompt)


def test_a_changed_order_is_another_order_and_the_old_answer_is_wrong():
    customer, changed = HelpDeskCustomer(0), 0
    for prompt in PROMPTS:
        request = read(prompt)
        if request.kind != "order":
            continue
        right = answer(SHOP, prompt, Style())
        reply = customer.reply([*prompt, assistant(right)])
        if reply is None:
            continue
        changed += 1
        now = [*prompt, assistant(right), reply]
        assert (read(now).count != request.count) != (read(now).day != request.day)
        assert gold_score(SHOP, now, right).correct < 1
        assert gold_score(SHOP, now, answer(SHOP, now, Style())).correct == 1
    assert changed > 10


def test_a_customer_says_the_same_to_the_same():
    one, other, elsewhere = HelpDeskCustomer(0), HelpDeskCustomer(0), HelpDeskCustomer(1)
    reply = [[c.reply([*p, assistant("Hm.")]) for p in PROMPTS] for c in (one, other, elsewhere)]
    assert reply[0] == reply[1] == [one.reply([*p, assistant("Hm.")]) for p in PROMPTS]
    assert reply[0] != reply[2]


def test_a_customer_of_another_world_leaves():
    talk = [user("What is the capital of France?"), assistant("Paris.")]
    assert HelpDeskCustomer(0).reply(talk) is None


def test_the_gold_utility_judges_the_last_turn():
    prompt = [user("How much are the saws?")]
    before = [*prompt, assistant("Hm."), user("Sorry, I asked: what do the saws cost?")]
    good = f"Certainly. The saws cost ${SHOP['saws'].price}. Thank you!"
    utility = GoldUtility(0)
    assert utility.score([before], [good]) == utility.score([prompt], [good]) == [4.5]


def test_a_customer_can_be_deferred_and_sent_to_processes():
    call = defer(HelpDeskCustomer, max_turns=2, data_seed=3)
    assert describe(call) != describe(defer(HelpDeskCustomer, max_turns=4, data_seed=3))
    customer = resolve(call)
    again = pickle.loads(pickle.dumps(customer))  # noqa: S301 - of our own making
    talk = [*PROMPTS[0], assistant("Hm.")]
    assert again.max_turns == customer.max_turns == 2
    assert again.reply(talk) == customer.reply(talk)
