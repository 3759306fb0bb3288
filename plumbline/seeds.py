"""Seeds that are derived by name, so that no stage's randomness depends on another's.

A run has two independent seeds: the *data seed* fixes the world, its prompts and its labels, and
the *seed* fixes initialisation, batch order and sampling. The same data can so meet several
training seeds.
"""

from __future__ import annotations

import hashlib
import random

_BITS = 63  # fits a signed 64-bit integer, which torch, numpy and Parquet all accept


def derive(seed: int, *names: str | int) -> int:
    """Return a seed in ``[0, 2**63)`` that depends on ``seed`` and on every name, in order.

    >>> derive(0, "dpo", 3) == derive(0, "dpo", 3)
    True
    >>> derive(0, "dpo", 3) == derive(0, "dpo", 4)
    False
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - _BITS)


def rng(seed: int, *names: str | int) -> random.Random:
    """Return a generator of its own for ``names``, independent of all others."""
    return random.Random(derive(seed, *names))
