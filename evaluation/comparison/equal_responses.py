"""One score for one response, wherever it is met.

A scorer's rounding differs from batch to batch. Two policies that give the same response to a
prompt would else win or lose by the last bit: a policy before training against its own start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evaluation.comparison.training_runs import CheckpointEval, TrainingRun
from evaluation.sample_files import same_up_to_rounding
from plumbline.data.records import Row


class EqualScores:
    """Gives equal responses to a prompt the score that was met first."""

    def __init__(self, scorers: Sequence[str]) -> None:
        self._scorers = scorers
        self._first: dict[tuple[str, str], Row] = {}

    def of_run(self, run: TrainingRun) -> TrainingRun:
        """Return a training run with the scores of responses that were met before."""
        return replace(run, checkpoints=[self.of_checkpoint(c) for c in run.checkpoints])

    def of_checkpoint(self, checkpoint: CheckpointEval) -> CheckpointEval:
        """Return a checkpoint's evaluation with the scores of responses that were met before."""
        return replace(checkpoint, rows=[self._of_row(row) for row in checkpoint.rows])

    def _of_row(self, row: Row) -> Row:
        first = self._first.setdefault((row["prompt_id"], row["response"]), row)
        if first is row:
            return row
        changed = {
            scorer: first[scorer]
            for scorer in self._scorers
            if row.get(scorer) is not None
            and first.get(scorer) is not None
            and row[scorer] != first[scorer]
            and same_up_to_rounding(row[scorer], first[scorer])
        }
        return row | changed if changed else row
