"""Finished preferences before a training: pairs that teach little out, pairs with a fault in."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from plumbline.data.records import Row, assistant, iterate_dataset, write_dataset
from plumbline.data.stored_rows import StoredRows
from plumbline.dropped import DroppedFile, LeftOut
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import rng
from preference.corruptions import CORRUPTIONS
from preference.pairing import passes
from preference.pairs_config import PairFilterConfig, RefineConfig
from preference.relabel import SOURCE

Places = Sequence[int]
"""Numbers of rows, from 0."""
FAULT = "fault"
"""The column that says which fault a rejected response was given; null where it was sampled."""


@stage("preferences")
def refine_preferences(
    stage: Stage, *, config: RefineConfig, preferences: Artifact, seed: int
) -> Mapping[str, float | None]:
    """Filter, balance and extend the training pairs of preferences; held-out pairs stay."""
    rows = StoredRows(preferences.path, "train", stage.scratch)
    dropped = DroppedFile(stage.folder)
    places = different_enough(rows, config.filter, dropped)
    if config.balance_length:
        places = balanced_by_length(rows, places, seed, dropped)
    if not places:
        raise DataError(
            f"None of {len(rows)} pairs is left: {dropped.summary()}. Loosen refine.filter, or set "
            "refine.balance_length to false."
        )
    lengths: Counter[int] = Counter()
    negatives = 0

    def train() -> Iterator[Row]:
        nonlocal negatives
        for place in places:
            row = rows[place]
            lengths[_longer(row)] += 1
            yield row | {FAULT: row.get(FAULT)}
        for row in with_faults(rows, places, config, seed):
            negatives += 1
            yield row

    counts = write_dataset(
        stage.folder,
        {"train": train(), "test": iterate_dataset(preferences.path, "test")},
        kind="preference",
        title="Refined preferences",
        description=f"The pairs of {preferences.id}; {FAULT} marks rejected responses that were "
        "made from the chosen one.",
        dropped=dropped,
    )
    stage.report_dropped(dropped)
    unequal = lengths[1] + lengths[-1]
    return {
        "pairs": counts["train_rows"],
        "negatives": float(negatives),
        "chosen_longer_share": lengths[1] / unequal if unequal else None,
        "dropped_rows": counts["dropped_rows"],
    }


def different_enough(rows: Iterable[Row], limits: PairFilterConfig, dropped: LeftOut) -> Places:
    """Return the places of pairs whose texts are different enough, and of similar enough length."""
    kept = array("q")
    for place, row in enumerate(rows):
        chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
        if not passes(chosen, rejected, limits.max_similarity, None):
            reason = f"its responses are more alike than max_similarity ({limits.max_similarity:g})"
        elif not passes(chosen, rejected, None, limits.max_length_ratio):
            reason = f"its lengths differ by more than max_length_ratio ({limits.max_length_ratio})"
        else:
            kept.append(place)
            continue
        _leave_out(row, place, reason, dropped)
    return kept


def balanced_by_length(rows: Sequence[Row], places: Places, seed: int, dropped: LeftOut) -> Places:
    """Return the places of pairs of which half have the longer response as the chosen one.

    Surplus pairs leave at random. Pairs of equal length stay.
    """
    signs = array("b", (_longer(rows[place]) for place in places))
    longer, shorter = (
        array("q", (n for n, sign in enumerate(signs) if sign == wanted)) for wanted in (1, -1)
    )
    more = longer if len(longer) > len(shorter) else shorter
    surplus = set(rng(seed, "balance length").sample(more, abs(len(longer) - len(shorter))))
    side = "longer" if more is longer else "shorter"
    for n in sorted(surplus):
        reason = f"too many pairs have the {side} response as chosen"
        _leave_out(rows[places[n]], places[n], reason, dropped)
    return array("q", (place for n, place in enumerate(places) if n not in surplus))


def with_faults(
    rows: Sequence[Row], places: Sequence[int], config: RefineConfig, seed: int
) -> Iterator[Row]:
    """Yield pairs of chosen responses with copies of themselves that have a fault, marked.

    Of a share of the rows at these places; one that has nothing to spoil by the fault whose turn it
    is gets the next fault that applies, and none where no fault does.
    """
    drawn = sorted(
        rng(seed, "negatives").sample(range(len(places)), round(config.negatives * len(places)))
    )
    for turn, number in enumerate(drawn):
        row, faults = rows[places[number]], config.faults
        text = _text(row, "chosen")
        for step in range(len(faults)):
            fault = faults[(turn + step) % len(faults)]
            random = rng(seed, "fault", fault, row.get("pair_id", str(number)))
            spoilt = CORRUPTIONS[fault].function(text, random)
            if spoilt is not None and spoilt.strip() and spoilt != text:
                yield _spoilt_row(row, spoilt, fault, number)
                break


def _leave_out(row: Row, place: int, reason: str, dropped: LeftOut) -> None:
    dropped.add(row.get("origin", "preferences"), row.get("row", place + 1), reason, row)


def _spoilt_row(row: Row, spoilt: str, fault: str, number: int) -> Row:
    """Return a row with the chosen response and its copy; its label is certain."""
    certain = {"soft_label": 1.0} if "soft_label" in row else {}
    own: Row = {
        name: row[name]
        for name in ("prompt", "chosen", "chosen_policy", "chosen_temperature", "margin", "origin",
                     "row")
        if name in row
    }  # fmt: skip
    return {
        **own,
        **certain,
        "pair_id": f"{row.get('pair_id', number)}-{fault}",
        "rejected": [*row["chosen"][:-1], assistant(spoilt)],
        SOURCE: "fault",
        FAULT: fault,
    }


def _text(row: Row, side: str) -> str:
    return str(row[side][-1]["content"])


def _longer(row: Row) -> int:
    """Return 1 where the chosen response has more characters, -1 where fewer, 0 where as many."""
    chosen, rejected = len(_text(row, "chosen")), len(_text(row, "rejected"))
    return (chosen > rejected) - (chosen < rejected)
