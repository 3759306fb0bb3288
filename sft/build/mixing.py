"""The mixture: how many rows of each source and tier are trained on, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from plumbline.config import Config
from plumbline.data.records import Row
from plumbline.errors import DataError
from plumbline.seeds import derive
from plumbline.tables import Table
from sft.cleaning.step import texts_of

#: Shares of the tiers where a config gives none.
BALANCED = {"base": 60.0, "augmented": 30.0, "hard": 10.0}


@dataclass(frozen=True)
class Order:
    """An order in which rows are trained on."""

    name: str
    about: str
    difficulty: Callable[[Row], float] | None = None
    """What rows are ordered by, the smallest first; None: the order is not by rows."""
    shuffled: bool = False


def _length(row: Row) -> float:
    return float(sum(map(len, texts_of(row))))


def _turns(row: Row) -> float:
    return float(len(texts_of(row)))


def _of_function(path: str, function: Callable[..., Any]) -> Order:
    def difficulty(row: Row) -> float:
        value = function(row)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(
                f"{row['origin']}, row {row['row']}: {path} returned {value!r}; an order needs a "
                "number, the smaller the earlier."
            )
        return float(value)

    return Order(path, f"your own function {path}: the smallest number first", difficulty)


ORDERS = Table(
    "order of rows",
    (
        Order("as_read", "source by source, in the order of their files"),
        Order("shuffled", "at random, by the data seed", shuffled=True),
        Order("short_first", "a curriculum: the shortest dialogues first", _length),
        Order("few_turns_first", "a curriculum: dialogues of few turns first", _turns),
    ),
    from_function=_of_function,
)


def _shares(tiers: dict[str, float]) -> dict[str, float]:
    if any(share < 0 for share in tiers.values()) or not sum(tiers.values()) > 0:
        raise ValueError("shares of tiers are 0 or more, and one of them is more than 0")
    return tiers


class MixtureConfig(Config):
    """How many rows of each source and tier are trained on, and in which order."""

    tiers: Annotated[dict[str, float], AfterValidator(_shares)] = BALANCED
    """Shares of the tiers among the rows that are trained on, in any unit. They count where the
    sources are of several tiers; a tier without rows leaves its share to the others."""
    most_passes: float = Field(4.0, ge=1, le=100)
    """How often a row may stand in the mixture, where a tier has fewer rows than its share. Up to
    four passes cost little (Muennighoff et al., 2023, arXiv 2305.16264)."""
    rows: int | None = Field(None, ge=1)
    """Rows to train on in all. Null: as many as it takes for every row of the tier with the largest
    share."""
    order: Annotated[str, ORDERS] = "as_read"
    """In which order they stand. A curriculum is kept in training only if training does not
    shuffle."""


class Portion(dict[str, Any]):
    """What a source gives to the mixture: ``rows``, ``drawn`` and ``tier``."""


def portions(
    counts: Sequence[int],
    weights: Sequence[float],
    tiers: Sequence[str | None],
    config: MixtureConfig,
) -> list[int]:
    """Return how many rows each source gives.

    ``counts``: rows of each source; ``weights``: passes over it; ``tiers``: where it belongs. A
    source of n rows with weight w counts w n rows, C for a tier. With the tiers' shares s, the
    mixture has T = min(C/s of the tier of the largest share, most_passes C/s of every other) rows:
    that tier as it is, unless another one would be repeated too often. Raises `DataError` where a
    tier has no share.
    """
    wanted = np.array(weights, dtype=np.float64) * np.array(counts, dtype=np.float64)
    names = sorted({tier for tier, n in zip(tiers, counts, strict=True) if tier and n})
    if len(names) > 1:
        unknown = [name for name in names if name not in config.tiers]
        if unknown:
            raise DataError(
                f"The tier {unknown[0]!r} has no share: mixture.tiers has "
                f"{', '.join(config.tiers)}. Add it there, or give its sources one of these."
            )
        sizes = {
            name: sum(n for n, tier in zip(wanted, tiers, strict=True) if tier == name)
            for name in names
            if config.tiers[name] > 0
        }
        whole = sum(config.tiers[name] for name in sizes)
        if not sizes or not whole:
            raise DataError("mixture.tiers gives every tier of the sources the share 0.")
        limits = {name: sizes[name] * whole / config.tiers[name] for name in sizes}
        largest = max(sizes, key=lambda name: config.tiers[name])
        total = min(limits[largest], config.most_passes * min(limits.values()))
        factors = {
            name: total * config.tiers[name] / whole / sizes[name] if name in sizes else 0.0
            for name in names
        }
        wanted *= np.array([factors.get(tier or "", 0.0) for tier in tiers])
    if config.rows is not None and wanted.sum() > 0:
        wanted *= config.rows / wanted.sum()
    most = config.most_passes * np.maximum(1.0, weights) * np.array(counts)
    if (wanted > most + 0.5).any():
        source = int(np.argmax(wanted - most))
        raise DataError(
            f"The mixture needs {wanted[source]:,.0f} rows of source {source + 1}, which has "
            f"{counts[source]:,}: more than {config.most_passes:g} passes. Lower mixture.rows, or "
            "raise mixture.most_passes."
        )
    return [round(float(n)) for n in wanted]


def draw(
    source: np.ndarray,
    difficulty: np.ndarray,
    drawn: Mapping[int, int],
    config: MixtureConfig,
    data_seed: int,
) -> np.ndarray:
    """Return the rows of the mixture by their places, in order: ``[M]`` places in ``source``.

    ``source``: [N] the source of each row. A source that gives more rows than it has stands in
    several passes; of the last, the rows are drawn by the data seed.
    """
    passes: list[np.ndarray] = []
    for number in sorted(drawn):
        places = np.flatnonzero(source == number)
        whole, rest = divmod(drawn[number], max(1, len(places)))
        passes += [places] * whole
        if rest:
            generator = np.random.default_rng(derive(data_seed, "mixture", number))
            passes.append(np.sort(generator.choice(places, rest, replace=False)))
    mixed = np.concatenate(passes) if passes else np.empty(0, np.int64)
    order = ORDERS[config.order]
    if order.shuffled:
        generator = np.random.default_rng(derive(data_seed, "order of rows"))
        return np.asarray(generator.permutation(mixed))
    if order.difficulty is not None:
        return np.asarray(mixed[np.argsort(difficulty[mixed], kind="stable")])
    return mixed
