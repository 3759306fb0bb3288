"""Near duplicates: rows whose texts share most of their words, in the same order.

Each row gets a MinHash signature (Broder, 1997) of its shingles. Rows that agree in a band of it
are candidates (locality-sensitive hashing); each candidate is then compared in full, so no row is
left out by an estimate. A row is left out for an earlier one that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from plumbline.data.records import Row
from sft.cleaning.step import Compared, Comparison, Removal, Step, StepConfig, turns_of
from sft.duplicates.words import jaccard, numbers_of, order_similarity, shingles_of, words_of

_PERMUTATIONS = 128
_ROWS_PER_BAND = 6
_BANDS = _PERMUTATIONS // _ROWS_PER_BAND
_SEED = 42
#: A row's key: its number of shingles, a hash of each band, the last byte of each minimum.
_KEY = np.dtype(
    [("shingles", "<u4"), ("bands", "<u4", (_BANDS,)), ("minima", "u1", (_PERMUTATIONS,))]
)
#: Estimates are off by about 0.04 (one standard deviation); below this margin nobody is compared.
_MARGIN = 0.15
#: Pairs whose estimates are computed at a time.
_PAIRS = 65_536


class NearDuplicatesConfig(StepConfig):
    """Which rows are near copies of others."""

    step: Literal["near_duplicates"] = "near_duplicates"
    threshold: float = Field(0.7, ge=0.5, le=1)
    """Least share of words that two rows have in common (Jaccard), and least share that stands in
    the same order. Texts without spaces are compared by runs of three characters."""
    min_words: int = Field(8, ge=1)
    """Rows of fewer words are compared for exact copies alone: few words in common say little."""
    same_numbers: bool = True
    """Rows with other numbers in them are no copies: 3 + 4 is another question than 3 + 5."""
    of: Literal["row", "prompt", "answer"] = "row"
    """What is compared: all turns but the system's, those before the last answer, or the last
    answer."""


class Text(NamedTuple):
    """A row as it is compared."""

    words: list[str]
    shingles: frozenset[str]
    numbers: list[str]


def compared_text(row: Row, of: str) -> str:
    """Return the text by which a row is compared; system messages are the same in many rows."""
    turns = turns_of(row)
    turns = turns[-1:] if of == "answer" else turns[:-1] if of == "prompt" else turns
    return "\n".join(turn["content"] for turn in turns if turn["role"] != "system")


def are_near(first: Text, second: Text, config: NearDuplicatesConfig) -> bool:
    """Return whether two rows are near copies of each other."""
    if config.same_numbers and first.numbers != second.numbers:
        return False
    if jaccard(first.shingles, second.shingles) < config.threshold:
        return False
    return order_similarity(first.words, second.words) >= config.threshold


def _key(config: NearDuplicatesConfig) -> Callable[[Row], bytes]:
    def key(row: Row) -> bytes:
        text = compared_text(row, config.of)
        shingles = shingles_of(text)
        words = len(shingles) if text.isascii() else len(words_of(text))
        record = np.zeros((), _KEY)
        if words >= config.min_words:
            shingles = list(dict.fromkeys(shingles))
            minima = minima_of(shingles)
            record["shingles"] = len(shingles)
            record["minima"] = (minima & 0xFF).astype(np.uint8)
            record["bands"] = band_hashes(minima)
        return record.tobytes()

    return key


def minima_of(shingles: list[str]) -> np.ndarray:
    """Return the MinHash signature of a set of shingles: [128] numbers of 32 bits, by rensa.

    Rensa changed its algorithm in 0.5 and may again; signatures are never kept between builds.
    """
    import rensa

    signature = rensa.RMinHash(num_perm=_PERMUTATIONS, seed=_SEED)
    signature.update(shingles)
    return np.array(signature.digest(), dtype=np.uint32)


def band_hashes(minima: np.ndarray) -> np.ndarray:
    """Return a hash of each band of a signature: [21] numbers of 32 bits (FNV-1a by words)."""
    rows = minima[: _BANDS * _ROWS_PER_BAND].reshape(_BANDS, _ROWS_PER_BAND).astype(np.uint64)
    hashes = np.full(_BANDS, 0xCBF29CE484222325, np.uint64)
    for column in range(_ROWS_PER_BAND):
        hashes = (hashes ^ rows[:, column]) * np.uint64(0x100000001B3)
    return (hashes ^ (hashes >> np.uint64(32))).astype(np.uint32)


def _decide(config: NearDuplicatesConfig, rows: Compared) -> Iterator[Removal]:
    """Leave out each row that is a near copy of an earlier row that stays."""
    keys = [np.asarray(block).reshape(-1).view(_KEY) for block in rows.keys]
    sizes = np.concatenate([block["shingles"] for block in keys])
    places = np.flatnonzero(rows.alive & (sizes > 0))
    candidates = candidate_pairs(keys, places)
    texts = _Texts(rows.row, config.of)
    kept_for: dict[int, int] = {}
    for late, early in _likely(keys, candidates, config.threshold - _MARGIN):
        if late in kept_for:
            continue
        # What is a copy of a copy is compared with the row that stays.
        kept = kept_for.get(early, early)
        if are_near(texts[late], texts[kept], config):
            kept_for[late] = kept
            stays = rows.row(kept)
            detail = {"near": {"origin": stays["origin"], "row": stays["row"]}}
            yield Removal(late, "is a near copy of an earlier row", detail)


def candidate_pairs(keys: list[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Return pairs of rows that agree in a band: [P, 2] places, the later one first, in order.

    Of the rows that agree, each is paired with the first of them and with the two before it. So
    there are at most three pairs for each row and band, however many rows agree.
    """
    parts: list[np.ndarray] = []
    for band in range(_BANDS):
        hashes = np.concatenate([block["bands"][:, band] for block in keys])[places]
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        group = np.repeat(starts, np.diff(np.append(starts, len(ordered))))
        ranks = np.arange(len(ordered)) - group
        for back in (1, 2):
            late = np.flatnonzero(ranks >= back)
            parts.append(_encoded(places[order[late]], places[order[late - back]]))
        late = np.flatnonzero(ranks >= 3)
        parts.append(_encoded(places[order[late]], places[order[group[late]]]))
        if len(parts) > 6:  # so that memory holds no pair many times
            parts = [np.unique(np.concatenate(parts))]
    pairs = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
    return np.stack([pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)], 1).astype(np.int64)


def _encoded(late: np.ndarray, early: np.ndarray) -> np.ndarray:
    return (late.astype(np.uint64) << np.uint64(32)) | early.astype(np.uint64)


def _likely(keys: list[np.ndarray], pairs: np.ndarray, least: float) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose signatures agree in at least so many of their minima.

    Of each minimum the last byte is kept (Li and König, 2010), so 1 in 256 agrees by chance.
    """
    starts = np.concatenate([[0], np.cumsum([len(block) for block in keys])])
    for start in range(0, len(pairs), _PAIRS):
        part = pairs[start : start + _PAIRS]
        first, second = (_minima(keys, starts, part[:, side]) for side in (0, 1))
        agree = (first == second).mean(1)
        estimate = (agree - 1 / 256) / (1 - 1 / 256)
        for late, early in part[estimate >= least]:
            yield int(late), int(early)


def _minima(keys: list[np.ndarray], starts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the minima of rows: [P, 128] bytes, read from where the keys lie."""
    minima = np.empty((len(places), _PERMUTATIONS), np.uint8)
    blocks = np.searchsorted(starts, places, side="right") - 1
    for block in np.unique(blocks):
        inside = np.flatnonzero(blocks == block)
        minima[inside] = keys[block]["minima"][places[inside] - starts[block]]
    return minima


class _Texts:
    """The texts of rows that are compared, the last ones kept."""

    def __init__(self, row: Callable[[int], Row], of: str, most: int = 4096) -> None:
        self._row, self._of, self._most = row, of, most
        self._texts: dict[int, Text] = {}

    def __getitem__(self, place: int) -> Text:
        text = self._texts.get(place)
        if text is None:
            written = compared_text(self._row(place), self._of)
            text = Text(words_of(written), frozenset(shingles_of(written)), numbers_of(written))
            if len(self._texts) >= self._most:
                self._texts.pop(next(iter(self._texts)))
            self._texts[place] = text
        return text


NEAR_DUPLICATES = Step(
    "near_duplicates",
    "rows whose texts share most of their words in the same order, found by MinHash and compared "
    "in full, in any source and split",
    NearDuplicatesConfig,
    compare=Comparison(lambda _: _KEY.itemsize, _key, _decide),
)
