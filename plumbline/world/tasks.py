"""The embedded world as a task: its prompts, with what a faultless clerk would respond."""

from __future__ import annotations

from plumbline.data.tasks import Item, Task
from plumbline.world.clerks import Style, answer
from plumbline.world.data import prompts
from plumbline.world.requests import read
from plumbline.world.shop import Shop


def world_task(data_seed: int, count: int, share: str = "heldout") -> Task:
    """Return prompts of the embedded world with what a faultless clerk would have answered."""
    shop = Shop.from_seed(data_seed)
    items = []
    for prompt in prompts(data_seed, count, share):
        request = read(prompt)
        assert request is not None
        items.append(Item(prompt, (answer(shop, prompt, Style()),), request.kind))
    return Task("the shop's help desk", tuple(items))
