"""Finished preferences before a training: pairs that teach little out, pairs with a fault in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plumbline.data.records import Row, assistant, read_dataset, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import rng
from preference.corruptions import CORRUPTIONS
from preference.pairing import passes
from preference.pairs_config import PairFilterConfig, RefineConfig
from preference.relabel import SOURCE

FAULT = "fault"
"""The column that says which fault a rejected response was given; null where it was sampled."""


@stage("preferences")
def refine_preferences(
    stage: Stage, *, config: RefineConfig, preferences: Artifact, seed: int
) -> Mapping[str, float | None]:
    """Filter, balance and extend the training pairs of preferences; held-out pairs stay."""
    rows, dropped = read_dataset(preferences.path, "train"), Dropped()
    read = len(rows)
    rows = different_enough(rows, config.filter, dropped)
    if config.balance_length:
        rows = balanced_by_length(rows, seed, dropped)
    if not rows:
        raise DataError(
            f"None of {read} pairs is left: {dropped.summary()}. Loosen refine.filter, or set "
            "refine.balance_length to false."
        )
    negatives = with_faults(rows, config, seed)
    stage.report_dropped(dropped)
    kept = [row | {FAULT: row.get(FAULT)} for row in rows]
    counts = write_dataset(
        stage.folder,
        {"train": [*kept, *negatives], "test": read_dataset(preferences.path, "test")},
        kind="preference",
        title="Refined preferences",
        description=f"The pairs of {preferences.id}; {FAULT} marks rejected responses that were "
        "made from the chosen one.",
        dropped=dropped,
    )
    unequal = [longer for row in kept if (longer := _longer(row)) != 0]
    return {
        "pairs": counts["train_rows"],
        "negatives": float(len(negatives)),
        "chosen_longer_share": sum(x > 0 for x in unequal) / len(unequal) if unequal else None,
        "dropped_rows": counts["dropped_rows"],
    }


def different_enough(rows: Sequence[Row], limits: PairFilterConfig, dropped: Dropped) -> list[Row]:
    """Return the pairs whose texts are different enough, and of similar enough length."""
    kept = []
    for number, row in enumerate(rows, 1):
        chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
        if not passes(chosen, rejected, limits.max_similarity, None):
            reason = f"its responses are more alike than max_similarity ({limits.max_similarity:g})"
        elif not passes(chosen, rejected, None, limits.max_length_ratio):
            reason = f"its lengths differ by more than max_length_ratio ({limits.max_length_ratio})"
        else:
            kept.append(row)
            continue
        dropped.add(row.get("origin", "preferences"), row.get("row", number), reason, row)
    return kept


def balanced_by_length(rows: Sequence[Row], seed: int, dropped: Dropped) -> list[Row]:
    """Return pairs of which the chosen response is the longer one as often as the shorter one.

    Surplus pairs leave at random. Pairs of equal length stay.
    """
    longer, shorter = (
        [n for n, row in enumerate(rows) if _longer(row) == sign] for sign in (1, -1)
    )
    more = longer if len(longer) > len(shorter) else shorter
    surplus = set(rng(seed, "balance length").sample(more, abs(len(longer) - len(shorter))))
    side = "longer" if more is longer else "shorter"
    for n in sorted(surplus):
        row = rows[n]
        reason = f"too many pairs have the {side} response as chosen"
        dropped.add(row.get("origin", "preferences"), row.get("row", n + 1), reason, row)
    return [row for n, row in enumerate(rows) if n not in surplus]


def with_faults(rows: Sequence[Row], config: RefineConfig, seed: int) -> list[Row]:
    """Return pairs of chosen responses with copies of themselves that have a fault, marked.

    Of a share of the rows; one that has nothing to spoil by the fault whose turn it is gets the
    next fault that applies, and none where no fault does.
    """
    drawn = sorted(
        rng(seed, "negatives").sample(range(len(rows)), round(config.negatives * len(rows)))
    )
    negatives: list[Row] = []
    for turn, number in enumerate(drawn):
        row, faults = rows[number], config.faults
        text = _text(row, "chosen")
        for step in range(len(faults)):
            fault = faults[(turn + step) % len(faults)]
            random = rng(seed, "fault", fault, row.get("pair_id", str(number)))
            spoilt = CORRUPTIONS[fault].function(text, random)
            if spoilt is not None and spoilt.strip() and spoilt != text:
                negatives.append(_spoilt_row(row, spoilt, fault, number))
                break
    return negatives


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
