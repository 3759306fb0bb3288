"""The split of a dataset: by prompt, so that none is on both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from plumbline.data.records import Row, is_held_out, opening, prompt_id
from sft.cleaning.step import Compared, Removal
from sft.sources import Split

#: Bytes of a row's key: whether it is held out, then its opening's id.
KEY_BYTES = 9


class SplitRule(NamedTuple):
    """How rows of one source are split."""

    split: Split | None
    """The split of all its rows; None: a share is held out."""
    may_grow: bool
    """Whether dialogues may be the beginnings of others: all with one opening are on one side."""


def split_of(row: Row, rule: SplitRule, share: float, data_seed: int) -> Split:
    """Return the split of a row: its prompt and the data seed decide."""
    if rule.split is not None:
        return rule.split
    prompt = opening(row["messages"]) if rule.may_grow else row["messages"][:-1]
    return "test" if is_held_out(prompt, share, data_seed) else "train"


def opening_key() -> Callable[[Row], bytes]:
    """Return what makes a row's key: whether it is held out, and how it opens."""
    return lambda row: (
        bytes([row["split"] == "test"]) + bytes.fromhex(prompt_id(opening(row["messages"])))
    )


def those_that_open_as_held_out_ones(rows: Compared) -> Iterator[Removal]:
    """Leave out each training row whose dialogue opens as a held-out one does."""
    keys = np.concatenate([np.asarray(block) for block in rows.keys])
    openings = np.ascontiguousarray(keys[:, 1:]).view(f"V{KEY_BYTES - 1}").ravel()
    held_out = keys[:, 0] == 1
    same = np.isin(openings.view(np.uint64), openings[held_out & rows.alive].view(np.uint64))
    for place in np.flatnonzero(same & ~held_out & rows.alive):
        yield Removal(int(place), "has a held-out prompt")
