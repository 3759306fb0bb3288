"""A trained judge in this process, and how well it judges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch

from plumbline.data.records import Message, read_dataset
from plumbline.errors import DataError
from plumbline.lm.chat import encode_response
from plumbline.lm.policy import Policy
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from reward.judge.judgments import REPLIES, judge_question
from reward.scorers.both_orders import Verdict


class LocalJudge:
    """Judges pairs by a language model; for `BothOrdersScorer`, and by probabilities of its own.

    Nothing is sampled: the verdict is the reply that the model finds more probable.
    """

    concurrency = 1

    def __init__(self, model: Artifact | Path, batch_size: int = 32) -> None:
        silence_libraries()
        self._folder = model.path if isinstance(model, Artifact) else model
        self._batch_size = batch_size

    @cached_property
    def policy(self) -> Policy:
        """The judge's language model, loaded when it is first asked for."""
        return Policy.load(self._folder)

    def compare(self, prompt: Sequence[Message], first: str, second: str) -> Verdict | None:
        """Return the verdict on two responses, in the order in which they are shown."""
        (log_odds,) = self.log_odds([prompt], [first], [second])
        return "tie" if log_odds == 0 else "first" if log_odds > 0 else "second"

    @torch.no_grad()
    def log_odds(
        self,
        prompts: Sequence[Sequence[Message]],
        first: Sequence[str],
        second: Sequence[str],
    ) -> list[float]:
        """Return log P("1") - log P("2") of each pair, as it is shown, in nats."""
        questions, replies = [], []
        for pair in zip(prompts, first, second, strict=True):
            for reply in REPLIES.values():
                ids = encode_response(self.policy.tokenizer, judge_question(*pair), reply)
                questions.append(ids[0])
                replies.append(ids[1])
        logprobs = self.policy.logprobs_of(questions, replies, batch_size=self._batch_size)
        sums = logprobs.sum(1).view(-1, 2)
        odds: list[float] = (sums[:, 0] - sums[:, 1]).tolist()
        return odds

    def preference(
        self,
        prompts: Sequence[Sequence[Message]],
        first: Sequence[str],
        second: Sequence[str],
    ) -> list[float]:
        """Return the probability that the first response is the better, over both orders.

        sigma of the mean of the log-odds in either order, so that a liking for a place cancels.
        """
        shown, swapped = (
            self.log_odds(prompts, first, second),
            self.log_odds(prompts, second, first),
        )
        return [
            1 / (1 + math.exp(-max(-700.0, (a - b) / 2)))
            for a, b in zip(shown, swapped, strict=True)
        ]


@stage("judge-accuracy")
def measure_judge(
    stage: Stage, *, judge: LocalJudge, preferences: Artifact, most_pairs: int | None = None
) -> Mapping[str, float | None]:
    """Measure how often a judge agrees with held-out preferences, and with itself when swapped."""
    rows = read_dataset(preferences.path, "test")[:most_pairs]
    if not rows:
        raise DataError(f"{preferences.id} has no held-out pairs to measure a judge on.")
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = ([row[s][-1]["content"] for row in rows] for s in ("chosen", "rejected"))
    shown, swapped = (
        judge.log_odds(prompts, chosen, rejected),
        judge.log_odds(prompts, rejected, chosen),
    )
    both = [(a - b) / 2 for a, b in zip(shown, swapped, strict=True)]
    verdicts = [(a > 0, b > 0) for a, b in zip(shown, swapped, strict=True)]
    return {
        "accuracy": sum(x > 0 for x in both) / len(both),
        "same_verdict_when_swapped": sum(a != b for a, b in verdicts) / len(verdicts),
        "prefers_first_place": sum(a + b for a, b in verdicts) / (2 * len(verdicts)),
        "pairs": float(len(rows)),
    }
