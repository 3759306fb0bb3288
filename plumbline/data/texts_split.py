"""Which texts are held out: their content and the data seed decide."""

from __future__ import annotations

import hashlib

from plumbline.seeds import derive


def held_out_place(text: str, data_seed: int) -> float:
    """Return a number in [0, 1) that depends on a text and the data seed alone.

    Texts below a share are the held-out share.
    """
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    return derive(data_seed, "held-out text", identity) / 2**63
