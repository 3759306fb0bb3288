"""Which texts are held out: their content and the data seed decide."""

from __future__ import annotations

import hashlib

from plumbline.seeds import derive


def held_out_place(text: str, data_seed: int) -> float:
    """Return a number in [0, 1) that depends on a text and the data seed alone.

    Texts below a share are the held-out share.
    """
    return derive(data_seed, "held-out text", f"{text_number(text):016x}") / 2**63


def text_number(text: str) -> int:
    """Return a hash of a text, a number of 64 bits, for indexes of many."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
