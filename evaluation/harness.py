"""Judging one policy: sample once on fixed prompts, then measure.

The same object is the hook that judges a policy during DPO and PPO, and what judges it after. All
policies answer the same prompts from the same random streams, so they differ by what they are and
not by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.config import EvaluationConfig
from evaluation.statistics import mean_and_error, sequence_kl, win_points
from plumbline.artefacts import Artefact
from plumbline.batches import collate
from plumbline.generation import Generation
from plumbline.hooks import Scorer
from plumbline.logprobs import in_parts
from plumbline.policy import Policy
from plumbline.records import Conversation, Row, prompt_id
from plumbline.seeds import derive

SAMPLES = "samples.parquet"
#: Responses whose log-probabilities are computed at once.
_MICRO_BATCH = 32

Sampler = Callable[[Policy, list[list[int]], list[int]], list[Generation]]


class Harness:
    """Fixed prompts, fixed random streams and the scorers: one way of judging for all."""

    def __init__(
        self,
        config: EvaluationConfig,
        prompts: Sequence[Conversation],
        scorers: Sequence[Scorer],
        data_seed: int,
        baseline: Artefact | None = None,
    ) -> None:
        self.config = config
        self.prompts = list(prompts[: config.prompts])
        self.scorers = list(scorers)
        self._data_seed = data_seed
        self._baseline = {} if baseline is None else baseline_scores(baseline)

    def __call__(
        self, policy: Policy, reference: Policy, step: int, folder: Path
    ) -> Mapping[str, float]:
        """Judge a policy while it trains; its answers go to ``folder``."""
        asked = self.prompts[: self.config.prompts_during_training]
        rows = self.judge(policy, reference, asked)
        folder.mkdir(parents=True, exist_ok=True)
        write_samples(folder / f"step-{step}.parquet", rows)
        return {f"eval/{name}": value for name, value in self.figures(rows).items()}

    def judge(
        self,
        policy: Policy,
        reference: Policy,
        prompts: Sequence[Conversation],
        sampler: Sampler | None = None,
    ) -> list[Row]:
        """Let a policy answer prompts, and return each answer with all measures of it."""
        encoded = [policy.encode(prompt) for prompt in prompts]
        seeds = [derive(self._data_seed, "evaluation", prompt_id(prompt)) for prompt in prompts]
        if sampler is None:
            generations = policy.sample(encoded, seeds, self.config.sampling)
        else:
            generations = sampler(policy, encoded, seeds)
        texts = [policy.decode(generation.ids) for generation in generations]
        references = self._reference_logprobs(policy, reference, encoded, generations)
        rows: list[Row] = [
            {
                "prompt_id": prompt_id(prompt),
                "prompt": prompt,
                "response": text,
                "tokens": len(generation.ids),
                "words": len(text.split()),
                "finished": generation.finished,
                "logprob": sum(generation.logprobs),
                "reference_logprob": reference_logprob,
            }
            for prompt, text, generation, reference_logprob in zip(
                prompts, texts, generations, references, strict=True
            )
        ]
        for scorer in self.scorers:
            for row, score in zip(rows, scorer.score(prompts, texts), strict=True):
                row[scorer.name] = score
            explain = getattr(scorer, "explain", None)
            if explain is not None:
                for row in rows:
                    parts = explain(row["prompt"], row["response"])
                    row |= {f"{scorer.name}.{part}": value for part, value in parts.items()}
        return rows

    def figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return the means of all measures, and the win rate by each scorer over the baseline."""
        kl = sequence_kl(
            [row["logprob"] for row in rows], [row["reference_logprob"] for row in rows]
        )
        found = {
            "prompts": float(len(rows)),
            "kl": kl.mean,
            "kl_error": kl.error,
            "tokens": mean_and_error([row["tokens"] for row in rows]).mean,
            "words": mean_and_error([row["words"] for row in rows]).mean,
            "finished": mean_and_error([row["finished"] for row in rows]).mean,
        }
        for scorer in self.scorers:
            scores = mean_and_error([row[scorer.name] for row in rows])
            found |= {scorer.name: scores.mean, f"{scorer.name}_error": scores.error}
            if self._baseline:
                points = self.points(rows, scorer.name)
                found[f"{scorer.name}_win_rate"] = mean_and_error(points).mean
        return found

    def points(self, rows: Sequence[Row], scorer: str) -> list[float]:
        """Return the win points of each row over the baseline's answer to the same prompt.

        The same answer is a tie, even where a scorer's rounding differs from batch to batch.
        """
        theirs = [self._baseline[row["prompt_id"]] for row in rows]
        scores = [
            row[scorer] if row["response"] == other["response"] else other[scorer]
            for row, other in zip(rows, theirs, strict=True)
        ]
        return win_points([row[scorer] for row in rows], scores)

    @property
    def has_baseline(self) -> bool:
        """Whether there is a baseline to win against."""
        return bool(self._baseline)

    def _reference_logprobs(
        self,
        policy: Policy,
        reference: Policy,
        prompts: Sequence[Sequence[int]],
        generations: Sequence[Generation],
    ) -> list[float]:
        batch = collate(prompts, [generation.ids for generation in generations], policy.pad_id)
        temperature = self.config.sampling.temperature
        said = in_parts(
            lambda part: reference.logprobs(part, temperature).logprobs, batch, _MICRO_BATCH
        )
        return [float(value) for value in said.sum(1)]


def write_samples(path: Path, rows: Sequence[Row]) -> None:
    """Write judged answers as Parquet."""
    import pandas as pd

    pd.DataFrame(list(rows)).to_parquet(path, index=False)


def read_samples(artefact: Artefact) -> list[Row]:
    """Read the judged answers of an evaluation."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(artefact.path / SAMPLES).to_pylist()
    return rows


def baseline_scores(artefact: Artefact) -> dict[str, Row]:
    """Return the baseline's rows by prompt id."""
    return {row["prompt_id"]: row for row in read_samples(artefact)}
