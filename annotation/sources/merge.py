"""Labels from several sources merged: people in Argilla, files, judges and simulations.

Every label keeps its source. A label that is in two of the artefacts (the same pair, annotator,
source, purpose and time) is counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from annotation.gold_answers import read_gold, write_gold
from plumbline.data.labels import Choice, Label, read_labels, write_labels
from plumbline.data.records import iterate_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage

COVERAGE_FILE = "sources.json"
"""Beside merged labels: what each artefact contributed, and how many pairs only it has."""
_DUPLICATE = "is the same as an earlier label"
_CONTRADICTION = "contradicts an earlier label of the same person"


@stage("labels")
def merge_labels(
    stage: Stage, *, labels: Sequence[Artifact], pairs: Artifact | None = None
) -> Mapping[str, float | None]:
    """Merge labels; with ``pairs`` given, labels on other pairs are left out, and counted.

    Known answers of gold items are merged too. The probabilities that a simulation knows are not:
    they belong to its own labellers.
    """
    if not labels:
        raise DataError("There is nothing to merge: name at least one artefact of labels.")
    by_artifact = {artifact.id: read_labels(artifact.path) for artifact in labels}
    answers = merge_answers({artifact.id: read_gold(artifact.path) for artifact in labels})
    merged, dropped = merge(by_artifact)
    if pairs is not None:
        rows = iterate_dataset(pairs.path, "train", ["pair_id"])
        pair_ids = {row["pair_id"] for row in rows} | set(answers)
        merged = _only(merged, pair_ids, pairs.id, dropped)
    write_labels(stage.folder, merged)
    if answers:
        write_gold(stage.folder, answers)
    stage.report_dropped(dropped)
    table = coverage(by_artifact)
    made_for = {artifact.id: artifact.manifest.inputs.get("pairs") for artifact in labels}
    write_json(
        stage.folder / COVERAGE_FILE,
        {name: {**table[name], "pairs_artifact": made_for[name]} for name in table},
    )
    different = {pairs_id for pairs_id in made_for.values() if pairs_id is not None}
    if len(different) > 1:
        stage.say(
            f"the labels were given for different sets of pairs ({', '.join(sorted(different))}); "
            "the same pair_id is taken for the same pair"
        )
    counts = Counter(row["reason"].split(",")[0] for row in dropped.rows)
    return {
        "labels": float(len(merged)),
        "pairs": float(len({label.pair_id for label in merged})),
        "annotators": float(len({(label.source, label.annotator) for label in merged})),
        "sources": float(len({label.source for label in merged})),
        "duplicates": float(counts[_DUPLICATE]),
        "contradictions": float(counts[_CONTRADICTION]),
        "dropped_rows": float(len(dropped.rows)),
        "pairs_in_one_artifact_only": float(sum(int(row["only_here"]) for row in table.values())),
    }


def merge(by_artifact: Mapping[str, Sequence[Label]]) -> tuple[list[Label], Dropped]:
    """Merge labels by artefact, in the order given; return them, and what was left out and why.

    Two labels are the same label where pair, annotator, source, purpose and time are equal. The
    first one is kept. A later one with another answer is left out as a contradiction.
    """
    kept: dict[tuple[str, ...], Label] = {}
    dropped = Dropped()
    for origin, labels in by_artifact.items():
        for number, label in enumerate(labels, 1):
            before = kept.get(_key(label))
            if before is None:
                kept[_key(label)] = label
            elif before == label:
                dropped.add(origin, number, _DUPLICATE, label.pair_id)
            else:
                reason = f"{_CONTRADICTION}, pair, purpose and time"
                record = {
                    "pair_id": label.pair_id,
                    "annotator": label.annotator,
                    "choice": label.choice,
                    "kept": before.choice,
                }
                dropped.add(origin, number, reason, record)
    return list(kept.values()), dropped


def merge_answers(by_artifact: Mapping[str, Mapping[str, Choice]]) -> dict[str, Choice]:
    """Merge the known answers of gold items. Raises `DataError` where two differ."""
    answers: dict[str, Choice] = {}
    origin: dict[str, str] = {}
    for name, answers_of_one in by_artifact.items():
        for pair_id, answer in answers_of_one.items():
            if answers.setdefault(pair_id, answer) != answer:
                raise DataError(
                    f"The gold item {pair_id} has the answer {answers[pair_id]!r} in "
                    f"{origin[pair_id]} and {answer!r} in {name}. Correct one of them, or merge "
                    "without it."
                )
            origin.setdefault(pair_id, name)
    return answers


def coverage(by_artifact: Mapping[str, Sequence[Label]]) -> dict[str, dict[str, int]]:
    """Return by artefact how many labels and pairs it has, and how many pairs no other has."""
    pairs = {name: {label.pair_id for label in labels} for name, labels in by_artifact.items()}
    seen = Counter(pair_id for ids in pairs.values() for pair_id in ids)
    return {
        name: {
            "labels": len(by_artifact[name]),
            "pairs": len(ids),
            "only_here": sum(seen[pair_id] == 1 for pair_id in ids),
        }
        for name, ids in pairs.items()
    }


def _only(labels: Sequence[Label], pair_ids: set[str], name: str, dropped: Dropped) -> list[Label]:
    kept = []
    for number, label in enumerate(labels, 1):
        if label.pair_id in pair_ids:
            kept.append(label)
        else:
            dropped.add("merged", number, f"is on a pair that is not in {name}", label.pair_id)
    return kept


def _key(label: Label) -> tuple[str, ...]:
    return (label.pair_id, label.annotator, label.source, label.purpose, label.created_at)
