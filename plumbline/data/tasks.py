"""A task: prompts in a fixed order, what is known about good answers, and how answers are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plumbline.data.records import Conversation, Row, prompt_id


@dataclass(frozen=True)
class Item:
    """One prompt."""

    prompt: Conversation
    references: tuple[str, ...] = ()
    """Good answers, where any is known."""
    subset: str | None = None
    """To which kind of prompts it belongs."""


@dataclass(frozen=True)
class Task:
    """Prompts in a fixed order."""

    name: str
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    """What is worth saying of how they were read."""

    @property
    def prompts(self) -> list[Conversation]:
        """The prompts alone."""
        return [item.prompt for item in self.items]

    def first(self, count: int | None) -> Task:
        """Return the task's first prompts; all of them where no count is given."""
        return Task(self.name, self.items[:count], self.notes)

    def columns(self, item: Item) -> Row:
        """Return what stands of an item in each row about it: the same columns for all items."""
        row: Row = {"prompt_id": prompt_id(item.prompt), "prompt": item.prompt}
        if any(other.subset is not None for other in self.items):
            row["subset"] = item.subset
        if any(other.references for other in self.items):
            row["references"] = list(item.references)
        return row


def as_task(prompts: Task | Sequence[Conversation], name: str = "prompts") -> Task:
    """Return prompts as a task without references, and a task as it is."""
    if isinstance(prompts, Task):
        return prompts
    return Task(name, tuple(Item(prompt) for prompt in prompts))


def unique(items: Iterable[Item]) -> tuple[Item, ...]:
    """Join items with the same prompt, in the order of the first: their references add up."""
    found: dict[str, Item] = {}
    for item in items:
        known = found.setdefault(prompt_id(item.prompt), item)
        if known is not item:
            references = tuple(dict.fromkeys((*known.references, *item.references)))
            found[prompt_id(item.prompt)] = Item(known.prompt, references, known.subset)
    return tuple(found.values())
