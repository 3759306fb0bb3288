"""Evaluating one policy: responses are sampled once on fixed prompts, then measured.

The same object is the hook that evaluates a policy, or a reward model, during training, and what
evaluates it afterwards. All policies respond to the same prompts from the same random streams, so
differences between them do not come from the sampling noise of different streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from evaluation.config import EvaluationConfig
from evaluation.judges.scorer_agreement import agreement_with_pairs, agreement_with_scorers
from evaluation.measures.measure import Measure, Responses, add_columns, measure_metrics
from evaluation.sample_files import read_samples, win_scores_over, write_samples
from evaluation.tasks.sampling import Sampler, sample_responses
from plumbline.data.records import Conversation, Row, iterate_dataset, prompt_id
from plumbline.data.tasks import Item, Task, as_task
from plumbline.hooks import Scorer
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact
from plumbline.runs.processes import spread
from plumbline.statistics import mean_and_se, sequence_kl
from plumbline.training.processes import scores_of


class Harness:
    """Fixed prompts, fixed random streams, scorers and measures: one evaluation for all policies.

    ``baseline``: evaluated responses to win against. ``responses`` (of any policy) and ``pairs``
    (preferences with a split ``test``): what a reward model is evaluated on while it trains.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        prompts: Task | Sequence[Conversation],
        scorers: Sequence[Scorer],
        data_seed: int,
        baseline: Artifact | None = None,
        measures: Sequence[Measure] = (),
        responses: Artifact | None = None,
        pairs: Artifact | None = None,
    ) -> None:
        self.config = config
        self.task = as_task(prompts).first(config.prompts)
        self.scorers = list(scorers)
        self.measures = list(measures)
        self._data_seed = data_seed
        self._baseline = {} if baseline is None else rows_by_prompt(baseline)
        self._items = {prompt_id(item.prompt): item for item in self.task.items}
        self._responses = [] if responses is None else read_samples(responses)
        held_out = iter(()) if pairs is None else iterate_dataset(pairs.path, "test")
        self._pairs = list(islice(held_out, config.prompts))

    @property
    def prompts(self) -> list[Conversation]:
        """The prompts, in order."""
        return self.task.prompts

    def __call__(
        self, policy: Policy, reference: Policy, step: int, folder: Path
    ) -> Mapping[str, float]:
        """Evaluate a policy during training; its responses are written into ``folder``."""
        rows = self.evaluate(policy, reference, self.prompts[: self.config.prompts_during_training])
        folder.mkdir(parents=True, exist_ok=True)
        write_samples(folder / f"step-{step}.parquet", rows)
        return {f"eval/{name}": value for name, value in self.metrics(rows).items()}

    def judge_scorer(self, scorer: Scorer, step: int, folder: Path) -> Mapping[str, float]:
        """Evaluate a reward model during training, on held-out pairs and on fixed responses.

        Its scores of the responses are written into ``folder``.
        """
        metrics = agreement_with_pairs(scorer, self._pairs)
        rows = self._responses[: self.config.prompts_during_training]
        if rows:
            prompts, texts = [row["prompt"] for row in rows], [row["response"] for row in rows]
            scores = scores_of(scorer, prompts, texts)
            other_scores = {other.name: scores_of(other, prompts, texts) for other in self.scorers}
            metrics |= agreement_with_scorers(scores, other_scores, texts)
            folder.mkdir(parents=True, exist_ok=True)
            columns = {scorer.name: scores} | other_scores
            write_samples(
                folder / f"step-{step}.parquet",
                [
                    {"prompt_id": row["prompt_id"], "response": row["response"]}
                    | {name: values[number] for name, values in columns.items()}
                    for number, row in enumerate(rows)
                ],
            )
        return {f"eval/{name}": value for name, value in metrics.items()}

    def evaluate(
        self,
        policy: Policy,
        reference: Policy | None,
        prompts: Sequence[Conversation] | None = None,
        sampler: Sampler | None = None,
    ) -> list[Row]:
        """Sample a response to each prompt; return one row per response with all measures."""
        items = [
            self._items.get(prompt_id(prompt), Item(prompt))
            for prompt in (self.prompts if prompts is None else prompts)
        ]
        task = Task(self.task.name, tuple(items))
        rows = sample_responses(policy, task, self.config.sampling, self._data_seed, sampler)
        self.measure(rows, policy, reference)
        return rows

    def measure(
        self, rows: list[Row], policy: Policy | None, reference: Policy | None
    ) -> dict[str, str]:
        """Add all measures to the rows of sampled responses; return those left out, with reasons.

        There is no KL without a reference, or with one that has another tokenizer. Only measures
        that state it need the policy.
        """
        if reference is not None and all(row.get("ids") is not None for row in rows):
            logprobs: Sequence[float | None] = (
                self._reference_logprobs(reference, rows)
                if has_same_tokens(policy, reference)
                else [None] * len(rows)
            )
            for row, logprob in zip(rows, logprobs, strict=True):
                row["reference_logprob"] = logprob
        for scorer in self.scorers:
            _add_scores(scorer, rows)
        responses = Responses(rows, policy)
        problems = {measure.name: add_columns(measure, responses) for measure in self.measures}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def metrics(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return the means of all measures, and the win rate by each scorer over the baseline."""
        metrics = {"prompts": float(len(rows))}
        if all(row.get("reference_logprob") is not None for row in rows):
            kl = sequence_kl(
                [row["logprob"] for row in rows], [row["reference_logprob"] for row in rows]
            )
            metrics |= {"kl": kl.mean, "kl_se": kl.se}
            if all(row.get("sampling_logprob") is not None for row in rows):
                noise = [row["sampling_logprob"] - row["logprob"] for row in rows]
                metrics["kl_noise"] = mean_and_se([abs(value) for value in noise]).mean
        for name in ("tokens", "words", "finished"):
            metrics[name] = mean_and_se([row[name] for row in rows]).mean
        for scorer in self.scorers:
            score = mean_and_se([row[scorer.name] for row in rows])
            metrics |= {scorer.name: score.mean, f"{scorer.name}_se": score.se}
            if f"{scorer.name}_std" in rows[0]:
                stds = [row[f"{scorer.name}_std"] for row in rows]
                metrics[f"{scorer.name}_std"] = mean_and_se(stds).mean
            if self._baseline:
                win_rate = mean_and_se(self.win_scores(rows, scorer.name)).mean
                metrics[f"{scorer.name}_win_rate"] = win_rate
        for measure in self.measures:
            metrics |= measure_metrics(measure, rows)
        return metrics

    def win_scores(self, rows: Sequence[Row], scorer: str) -> list[float]:
        """Return the win score of each row over the baseline's response to the same prompt.

        Equal responses are a tie.
        """
        return win_scores_over(rows, self._baseline, scorer)

    @property
    def has_baseline(self) -> bool:
        """Whether there is a baseline to win against."""
        return bool(self._baseline)

    def _reference_logprobs(self, reference: Policy, rows: Sequence[Row]) -> list[float]:
        prompts = [reference.encode(row["prompt"]) for row in rows]
        responses = [row["ids"] for row in rows]
        temperature = self.config.sampling.temperature

        def of_rows(own: slice) -> list[float]:
            logprobs = reference.logprobs_of(prompts[own], responses[own], temperature)
            return [float(value) for value in logprobs.sum(1)]

        return spread(of_rows, len(rows))


def _add_scores(scorer: Scorer, rows: Sequence[Row]) -> None:
    """Add the scores of a scorer, and what else it reports, as columns."""
    prompts, texts = [row["prompt"] for row in rows], [row["response"] for row in rows]
    for row, score in zip(rows, scores_of(scorer, prompts, texts), strict=True):
        row[scorer.name] = score
    ensemble_std = getattr(scorer, "ensemble_std", None)
    if ensemble_std is not None:
        deviations = spread(lambda own: ensemble_std(prompts[own], texts[own]), len(rows))
        for row, std in zip(rows, deviations, strict=True):
            row[f"{scorer.name}_std"] = std
    explain = getattr(scorer, "explain", None)
    if explain is not None:
        for row in rows:
            parts = explain(row["prompt"], row["response"])
            row |= {f"{scorer.name}.{part}": value for part, value in parts.items()}


def has_same_tokens(policy: Policy | None, reference: Policy) -> bool:
    """Return whether both read the same ids as the same text; without a policy, assume so."""
    if policy is None or policy.tokenizer is reference.tokenizer:
        return True
    return bool(
        policy.tokenizer.get_vocab() == reference.tokenizer.get_vocab()
        and policy.tokenizer.chat_template == reference.tokenizer.chat_template
    )


def rows_by_prompt(artifact: Artifact) -> dict[str, Row]:
    """Return the rows of evaluated responses by prompt id."""
    return {row["prompt_id"]: row for row in read_samples(artifact)}
