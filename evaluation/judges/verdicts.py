"""What came of pairs that were put before people or an LLM: who won, and whether order decided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from evaluation.judges.pairs import EMPTY, SAME, pair_id, side_of_ours
from evaluation.samples import SAMPLES, read_samples, write_samples
from evaluation.statistics import mean_and_error, mean_interval
from plumbline.data.labels import Label, read_labels
from plumbline.data.records import Row
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage

#: The flag of a label whose judge said otherwise when the order was the other.
_INCONSISTENT = "inconsistent"


@stage("verdicts")
def read_verdicts(
    stage: Stage,
    *,
    ours: Artifact,
    theirs: Artifact,
    labels: Artifact | SourceFile,
    confidence: float,
    resamples: int,
    data_seed: int,
) -> Mapping[str, float | None]:
    """Give back to the policies the labels on their pairs; one row a prompt in ``samples.parquet``.

    The arguments are those that `pair_answers` had, with the labels that came of it. Each prompt's
    points are the mean of its votes: 1 for our answer, 0 for theirs, 1/2 for a tie or two bad ones.
    The same answer is a tie without a vote, and an empty one loses to any other. ``labels`` may be
    a ``labels.parquet``, as `plumbline annotate pull` writes it. The interval is a bootstrap over
    prompts; ``undecided`` prompts have no vote and count nowhere.
    """
    folder = labels.path if isinstance(labels, Artifact) else labels.path.parent
    given, answers = read_labels(folder), read_samples(ours)
    rows = verdicts(answers, read_samples(theirs), given, data_seed)
    points = [float(row["points"]) for row in rows]
    if len(points) < 2 or not any(row["votes"] for row in rows):
        raise DataError(
            f"None of {len(given)} labels in {folder} is on a pair of {ours.id} and {theirs.id}. "
            "Were the pairs made of other samples?"
        )
    write_samples(stage.folder / SAMPLES, rows)
    interval = mean_interval(points, confidence, resamples, data_seed)
    return {
        "win_rate": mean_and_error(points).mean,
        "win_rate_low": interval.low,
        "win_rate_high": interval.high,
        "prompts": float(len(rows)),
        "undecided": float(len(answers) - len(rows)),
        "same": float(sum(row["reason"] == SAME for row in rows)),
        "empty": float(sum(row["reason"] == EMPTY for row in rows)),
        **vote_figures([label for label in given if label.pair_id in _ids(rows)]),
        **(_of_judge(labels) if isinstance(labels, Artifact) else {}),
    }


def _ids(rows: Sequence[Row]) -> set[str]:
    return {pair_id(row["prompt_id"]) for row in rows}


def verdicts(
    ours: Sequence[Row], theirs: Sequence[Row], labels: Sequence[Label], data_seed: int
) -> list[Row]:
    """Return one row for each prompt that was decided: both answers, votes and our points."""
    votes: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.purpose in ("vote", "adjudication"):
            votes[label.pair_id].append(label)
    others = {row["prompt_id"]: row for row in theirs}
    rows: list[Row] = []
    for row in ours:
        other = others[row["prompt_id"]]
        name = pair_id(row["prompt_id"])
        decided = [one for one in votes[name] if one.purpose == "adjudication"] or votes[name]
        side, reason = side_of_ours(name, data_seed), None
        if row["response"] == other["response"]:
            points, decided, reason = [0.5], [], SAME
        elif not (row["response"].strip() and other["response"].strip()):
            both = not row["response"].strip() and not other["response"].strip()
            points, decided, reason = (
                [0.5 if both else float(bool(row["response"].strip()))],
                [],
                EMPTY,
            )
        elif decided:
            points = [
                1.0 if one.choice == side else 0.0 if one.choice in ("a", "b") else 0.5
                for one in decided
            ]
        else:
            continue
        rows.append(
            {
                "prompt_id": row["prompt_id"],
                "prompt": row["prompt"],
                "response": row["response"],
                "other_response": other["response"],
                "points": sum(points) / len(points),
                "votes": len(decided),
                "reason": reason,
            }
        )
    return rows


def vote_figures(labels: Sequence[Label]) -> dict[str, float | None]:
    """Return how many votes there are, of which kinds, and how many went to what stood first.

    ``first_share``: of the votes for either side, the share for the one that was shown first; 0.5
    for a judge who does not care. ``inconsistent``: labels whose judge said otherwise in the other
    order.
    """
    votes = [label for label in labels if label.purpose == "vote"]
    sided = [label for label in votes if label.choice in ("a", "b")]
    first = sum(label.choice == label.shown_first for label in sided)
    return {
        "votes": float(len(votes)),
        "annotators": float(len({label.annotator for label in votes})),
        "ties": float(sum(label.choice == "tie" for label in votes)),
        "both_bad": float(sum(label.choice == "both_bad" for label in votes)),
        "first_share": first / len(sided) if sided else None,
        "inconsistent": float(sum(_INCONSISTENT in label.flags for label in votes)),
    }


def _of_judge(labels: Artifact) -> dict[str, float | None]:
    """Return what the labels' own stage says of their judge, where it was one that has an order.

    An LLM's label is what it says in both orders, so its leaning shows only there: the share of
    pairs that it judged the same in both, and how often it was for what stood first.
    """
    names = ("position_consistency", "first_share")
    return {name: labels.metrics[name] for name in names if labels.metrics.get(name) is not None}
