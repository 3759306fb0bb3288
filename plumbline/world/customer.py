"""A customer of the help desk who answers back, so that a policy can learn in dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from plumbline.data.records import Message, prompt_id, user
from plumbline.seeds import rng
from plumbline.world.gold import gold_score
from plumbline.world.requests import CHANGES, QUESTIONS, READ_BACK, SUMS, Request, read
from plumbline.world.shop import DAYS, FACTS, PRODUCTS, Shop

_NOT_ANSWERED = ("Sorry, I asked: ", "That is not what I asked. ", "Please, once more: ")
_AND = ("Thanks. And ", "Good. Then ", "I see. Now, ")
#: Of customers who got an answer, the share that has no further question.
_SATISFIED = 0.25


class HelpDeskCustomer:
    """A customer of the embedded world's help desk, who has further questions.

    A customer who got no answer asks again. One who got an answer, true or not, which a customer
    cannot know, leaves or asks for more: after a fact or a sum with another question, after an
    order with a change to it. Each turn makes a request that the gold utility reads from the
    dialogue, so that it can judge the answer to any turn that is the last. A dialogue of another
    world ends at once.
    """

    name = "customer"

    def __init__(self, data_seed: int, max_turns: int = 3) -> None:
        self.max_turns = max_turns
        self._data_seed, self._shop = data_seed, Shop.from_seed(data_seed)

    def reply(self, dialogue: Sequence[Message]) -> Message | None:
        """Return what the customer says next, or None where the customer leaves."""
        before, response = list(dialogue[:-1]), dialogue[-1]["content"]
        request = read(before)
        if request is None:
            return None
        random = rng(self._data_seed, "customer", prompt_id(dialogue))
        if gold_score(self._shop, before, response).complete < 1:
            return user(random.choice(_NOT_ANSWERED) + _question(request, random))
        if random.random() < _SATISFIED:
            return None
        return user(_further_question(request, random))


def _question(request: Request, random: Random) -> str:
    """Return a question that makes a request; an order is already in the dialogue."""
    if request.kind == "order":
        return random.choice(READ_BACK)
    if request.kind == "sum":
        return random.choice(SUMS).format(items=f"{request.count} {request.product}")
    parts = [random.choice(QUESTIONS[fact]).format(p=request.product) for fact in request.facts]
    return parts[0] if len(parts) == 1 else parts[0][:-1] + ", and " + parts[1]


def _further_question(request: Request, random: Random) -> str:
    """Return what the same customer wants next."""
    if request.kind == "order":
        part = random.choice(("count", "day"))
        count = random.choice([n for n in range(2, 10) if n != request.count])
        day = random.choice([d for d in DAYS if d != request.day])
        change = random.choice(CHANGES[part]).format(items=f"{count} {request.product}", day=day)
        return f"{change} {_question(request, random)}"
    product = random.choice([p for p in PRODUCTS if p != request.product])
    if random.random() < 0.5:
        following = Request("facts", product, facts=(random.choice(FACTS),))
    else:
        following = Request("sum", product, count=random.randint(2, 9))
    return random.choice(_AND) + _question(following, random)
