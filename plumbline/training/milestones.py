"""When things happen during training."""

from __future__ import annotations


def milestones(steps: int, count: int) -> frozenset[int]:
    """Return step 0 and ``count`` more, evenly spaced, the last of them the last step.

    >>> sorted(milestones(10, 4))
    [0, 2, 5, 8, 10]
    """
    if count == 0:
        return frozenset()
    return frozenset(round(steps * number / count) for number in range(count + 1))
