"""Win rates from votes on pairs by people or an LLM, and how much the order mattered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from evaluation.judges.pairs import EMPTY, SAME, Side, pair_id, side_of
from evaluation.sample_files import SAMPLES, read_samples, write_samples
from plumbline.data.labels import Label, read_labels
from plumbline.data.records import Row
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage
from plumbline.statistics import bootstrap_interval, mean_and_se

#: The flag of a label whose judge decided differently in the other order.
_INCONSISTENT = "inconsistent"


@stage("verdicts")
def count_votes(
    stage: Stage,
    *,
    samples: Artifact,
    baseline_samples: Artifact,
    labels: Artifact | SourceFile,
    confidence: float,
    resamples: int,
    data_seed: int,
) -> Mapping[str, float | None]:
    """Return the win rate of a policy by the labels on its pairs; one row per prompt on disk.

    The arguments are those of `pair_responses`, with the labels on its pairs; ``labels`` may also
    be a ``labels.parquet``, as `plumbline annotate pull` writes it. The win score of a prompt is
    the mean of its votes: 1 for the policy, 0 for the baseline, 1/2 for a tie or two bad responses.
    Equal responses tie without a vote; an empty response loses to any other. The interval is a
    bootstrap over prompts. ``undecided`` prompts have no vote and are left out.
    """
    folder = labels.path if isinstance(labels, Artifact) else labels.path.parent
    all_labels, rows = read_labels(folder), read_samples(samples)
    decided = decided_prompts(rows, read_samples(baseline_samples), all_labels, data_seed)
    win_scores = [float(row["win_score"]) for row in decided]
    if len(win_scores) < 2 or not any(row["votes"] for row in decided):
        raise DataError(
            f"None of {len(all_labels)} labels in {folder} is on a pair of {samples.id} and "
            f"{baseline_samples.id}. Were the pairs made of other samples?"
        )
    write_samples(stage.folder / SAMPLES, decided)
    interval = bootstrap_interval(win_scores, confidence, resamples, data_seed)
    pair_ids = {pair_id(row["prompt_id"]) for row in decided}
    return {
        "win_rate": mean_and_se(win_scores).mean,
        "win_rate_low": interval.low,
        "win_rate_high": interval.high,
        "prompts": float(len(decided)),
        "undecided": float(len(rows) - len(decided)),
        "same": float(sum(row["reason"] == SAME for row in decided)),
        "empty": float(sum(row["reason"] == EMPTY for row in decided)),
        **vote_metrics([label for label in all_labels if label.pair_id in pair_ids]),
        **(_judge_metrics(labels) if isinstance(labels, Artifact) else {}),
    }


def decided_prompts(
    rows: Sequence[Row], baseline_rows: Sequence[Row], labels: Sequence[Label], data_seed: int
) -> list[Row]:
    """Return one row per decided prompt: both responses, the number of votes, the win score."""
    votes: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.purpose in ("vote", "adjudication"):
            votes[label.pair_id].append(label)
    baseline = {row["prompt_id"]: row["response"] for row in baseline_rows}
    decided: list[Row] = []
    for row in rows:
        response, baseline_response = row["response"], baseline[row["prompt_id"]]
        name = pair_id(row["prompt_id"])
        counted: list[Label] = []
        reason = None
        if response == baseline_response:
            win_score, reason = 0.5, SAME
        elif not response.strip() or not baseline_response.strip():
            win_score = (1.0 + bool(response.strip()) - bool(baseline_response.strip())) / 2
            reason = EMPTY
        elif votes[name]:
            counted = [v for v in votes[name] if v.purpose == "adjudication"] or votes[name]
            side = side_of(name, data_seed)
            win_score = sum(_win_score(vote, side) for vote in counted) / len(counted)
        else:
            continue
        decided.append(
            {
                "prompt_id": row["prompt_id"],
                "prompt": row["prompt"],
                "response": response,
                "baseline_response": baseline_response,
                "win_score": win_score,
                "votes": len(counted),
                "reason": reason,
            }
        )
    return decided


def _win_score(vote: Label, side: Side) -> float:
    if vote.choice not in ("a", "b"):
        return 0.5
    return float(vote.choice == side)


def vote_metrics(labels: Sequence[Label]) -> dict[str, float | None]:
    """Return the number of votes, of each kind, and how many went to the side shown first.

    ``first_share``: of the votes for a side, the share for the one that was shown first; 0.5 for a
    judge without position bias. ``inconsistent``: labels whose judge decided differently in the
    other order.
    """
    votes = [label for label in labels if label.purpose == "vote"]
    for_a_side = [label for label in votes if label.choice in ("a", "b")]
    for_first = sum(label.choice == label.shown_first for label in for_a_side)
    return {
        "votes": float(len(votes)),
        "annotators": float(len({label.annotator for label in votes})),
        "ties": float(sum(label.choice == "tie" for label in votes)),
        "both_bad": float(sum(label.choice == "both_bad" for label in votes)),
        "first_share": for_first / len(for_a_side) if for_a_side else None,
        "inconsistent": float(sum(_INCONSISTENT in label.flags for label in votes)),
    }


def _judge_metrics(labels: Artifact) -> dict[str, float | None]:
    """Return what the stage that made the labels reports of the position bias of its judge.

    An LLM's label combines both orders, so its bias shows only there: the share of pairs that it
    judged the same in both orders, and how often it preferred the response shown first.
    """
    names = ("position_consistency", "first_share")
    return {name: labels.metrics[name] for name in names if labels.metrics.get(name) is not None}
