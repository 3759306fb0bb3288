"""A task: prompts in a fixed order, with references and subsets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plumbline.data.records import Conversation, Row, prompt_id


@dataclass(frozen=True)
class Item:
    """One prompt."""

    prompt: Conversation
    references: tuple[str, ...] = ()
    """Good responses, where any is known."""
    subset: str | None = None
    """The kind of prompts that it belongs to."""


@dataclass(frozen=True)
class Task:
    """Prompts in a fixed order."""

    name: str
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    """What is worth saying of how they were read."""

    @property
    def prompts(self) -> list[Conversation]:
        """The prompts."""
        return [item.prompt for item in self.items]

    def first(self, count: int | None) -> Task:
        """Return the task with its first ``count`` prompts; with None, all of them."""
        return Task(self.name, self.items[:count], self.notes)

    def columns(self, item: Item) -> Row:
        """Return the columns of an item's row; all items of a task have the same columns."""
        row: Row = {"prompt_id": prompt_id(item.prompt), "prompt": item.prompt}
        if any(other.subset is not None for other in self.items):
            row["subset"] = item.subset
        if any(other.references for other in self.items):
            row["references"] = list(item.references)
        return row


def as_task(prompts: Task | Sequence[Conversation], name: str = "prompts") -> Task:
    """Return prompts as a task without references; a task is returned unchanged."""
    if isinstance(prompts, Task):
        return prompts
    return Task(name, tuple(Item(prompt) for prompt in prompts))


def unique(items: Iterable[Item]) -> tuple[Item, ...]:
    """Merge items with the same prompt, in the order of the first; their references add up."""
    by_prompt: dict[str, Item] = {}
    for item in items:
        first = by_prompt.setdefault(prompt_id(item.prompt), item)
        if first is not item:
            references = tuple(dict.fromkeys((*first.references, *item.references)))
            by_prompt[prompt_id(item.prompt)] = Item(first.prompt, references, first.subset)
    return tuple(by_prompt.values())
