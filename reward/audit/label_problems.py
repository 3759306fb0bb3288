"""What the data say: contradicting pairs, labels that look wrong, pairs to label next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from plumbline.statistics.crossed_effects import Floats


class Contradictions(NamedTuple):
    """Pairs that cannot all be right."""

    opposite: list[tuple[int, int]]
    """Numbers of two pairs that prefer opposite responses to one prompt."""
    cycles: list[list[int]]
    """Numbers of the pairs in each group in which preferences go in a circle (A > B > C > A)."""


def contradictions(
    prompts: Sequence[Hashable], chosen: Sequence[Hashable], rejected: Sequence[Hashable]
) -> Contradictions:
    """Return the pairs that contradict each other; all three [N], equal where they mean the same.

    A pair of opposite preferences is not reported again as a circle.
    """
    edges: dict[Hashable, dict[tuple[Hashable, Hashable], list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for number, (prompt, better, worse) in enumerate(zip(prompts, chosen, rejected, strict=True)):
        edges[prompt][better, worse].append(number)
    opposite: list[tuple[int, int]] = []
    cycles: list[list[int]] = []
    for of_prompt in edges.values():
        for (better, worse), numbers in of_prompt.items():
            others = of_prompt.get((worse, better), [])
            opposite += [(a, b) for a in numbers for b in others if a < b]
        one_way = {edge: n for edge, n in of_prompt.items() if edge[::-1] not in of_prompt}
        for group in _circles(list(one_way)):
            cycles.append(sorted(n for e, ns in one_way.items() if set(e) <= group for n in ns))
    return Contradictions(sorted(opposite), cycles)


def _circles(edges: Sequence[tuple[Hashable, Hashable]]) -> list[set[Hashable]]:
    """Return the groups of nodes that reach each other: strongly connected, of 3 nodes or more."""
    reach: dict[Hashable, set[Hashable]] = defaultdict(set)
    for better, worse in edges:
        reach[better].add(worse)
    nodes = {node for edge in edges for node in edge}
    if len(nodes) < 3:
        return []
    for middle in nodes:  # the transitive closure (Warshall, 1962)
        for node in nodes:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    groups: list[set[Hashable]] = []
    for node in nodes:
        group = {other for other in reach[node] if node in reach[other]}
        if len(group) > 2 and not any(node in known for known in groups):
            groups.append(group)
    return groups


class Suspicious(NamedTuple):
    """Labels that look wrong."""

    threshold: float
    """What the model gives to a label on average: less than this against a label proves nothing."""
    numbers: list[int]
    """Numbers of the pairs, the most suspicious first."""
    share: float


def suspicious_labels(probabilities: ArrayLike) -> Suspicious:
    """Return the labels that confident learning counts as errors (Northcutt et al., 2021).

    ``probabilities`` [N]: how sure the calibrated model is of each label, P(chosen over rejected),
    on pairs that it was not trained on. A pair is a label error where the other label has a
    probability of at least the mean that the model gives to labels of that class. A pair has no
    first and second side, so both classes have one threshold, the mean of all.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not len(p):
        return Suspicious(1.0, [], 0.0)
    threshold = float(p.mean())
    wrong = np.flatnonzero((1 - p >= threshold) & (p < 0.5))
    order = wrong[np.argsort(p[wrong], kind="stable")]
    return Suspicious(threshold, [int(n) for n in order], len(order) / len(p))


def worth_labeling(
    probabilities: ArrayLike, is_suspicious: Sequence[bool], at_most: int
) -> tuple[list[int], Floats]:
    """Return the pairs whose next label says most, and the worth of every pair in nats, [N].

    The worth is the entropy of the model's probability: a label on a pair that it cannot decide is
    news. A label that looks wrong is worth as much as the most uncertain pair, log 2.
    """
    p = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-12, 1 - 1e-12)
    worth: Floats = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    worth = np.where(np.asarray(is_suspicious, dtype=bool), np.log(2), worth)
    order = np.argsort(-worth, kind="stable")[:at_most]
    return [int(number) for number in order], worth
