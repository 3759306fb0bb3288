"""Judging one policy: answers are sampled once on fixed prompts, then measured.

The same object is the hook that judges a policy, or a reward model, during training, and what
judges it after. All policies answer the same prompts from the same random streams, so they differ
by what they are and not by luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.config import EvaluationConfig
from evaluation.judges.scorers import agreement_with_pairs, agreement_with_scorers
from evaluation.measures.measure import Answers, Measure, add_columns, figures_of
from evaluation.samples import points_over, read_samples, write_samples
from evaluation.statistics import mean_and_error, sequence_kl
from evaluation.tasks.sampling import Sampler, answer
from plumbline.data.records import Conversation, Row, prompt_id, read_dataset
from plumbline.data.tasks import Item, Task, as_task
from plumbline.hooks import Scorer
from plumbline.lm.batches import collate
from plumbline.lm.logprobs import in_parts
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact

#: Responses whose log-probabilities are computed at once.
_MICRO_BATCH = 32


class Harness:
    """Fixed prompts, fixed random streams, scorers and measures: one way of judging for all.

    ``baseline`` are judged answers to win against. ``answers`` (of any policy) and ``pairs``
    (preferences with a split ``test``) are what a reward model is judged on while it trains.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        prompts: Task | Sequence[Conversation],
        scorers: Sequence[Scorer],
        data_seed: int,
        baseline: Artifact | None = None,
        measures: Sequence[Measure] = (),
        answers: Artifact | None = None,
        pairs: Artifact | None = None,
    ) -> None:
        self.config = config
        self.task = as_task(prompts).first(config.prompts)
        self.scorers = list(scorers)
        self.measures = list(measures)
        self._data_seed = data_seed
        self._baseline = {} if baseline is None else baseline_scores(baseline)
        self._items = {prompt_id(item.prompt): item for item in self.task.items}
        self._answers = [] if answers is None else read_samples(answers)
        self._pairs = [] if pairs is None else read_dataset(pairs.path, "test")

    @property
    def prompts(self) -> list[Conversation]:
        """The prompts, in order."""
        return self.task.prompts

    def __call__(
        self, policy: Policy, reference: Policy, step: int, folder: Path
    ) -> Mapping[str, float]:
        """Judge a policy while it trains; its answers go to ``folder``."""
        asked = self.prompts[: self.config.prompts_during_training]
        rows = self.judge(policy, reference, asked)
        folder.mkdir(parents=True, exist_ok=True)
        write_samples(folder / f"step-{step}.parquet", rows)
        return {f"eval/{name}": value for name, value in self.figures(rows).items()}

    def judge_scorer(self, scorer: Scorer, step: int, folder: Path) -> Mapping[str, float]:
        """Judge a reward model while it trains, on held-out pairs and on fixed answers.

        Its scores of the answers go to ``folder``.
        """
        figures = agreement_with_pairs(scorer, self._pairs[: self.config.prompts])
        rows = self._answers[: self.config.prompts_during_training]
        if rows:
            prompts, texts = [row["prompt"] for row in rows], [row["response"] for row in rows]
            scores = scorer.score(prompts, texts)
            others = {other.name: other.score(prompts, texts) for other in self.scorers}
            figures |= agreement_with_scorers(scores, others, texts)
            folder.mkdir(parents=True, exist_ok=True)
            columns = {scorer.name: scores} | others
            write_samples(
                folder / f"step-{step}.parquet",
                [
                    {"prompt_id": row["prompt_id"], "response": row["response"]}
                    | {name: values[number] for name, values in columns.items()}
                    for number, row in enumerate(rows)
                ],
            )
        return {f"eval/{name}": value for name, value in figures.items()}

    def judge(
        self,
        policy: Policy,
        reference: Policy | None,
        prompts: Sequence[Conversation] | None = None,
        sampler: Sampler | None = None,
    ) -> list[Row]:
        """Let a policy answer prompts, and return each answer with all measures of it."""
        items = [
            self._items.get(prompt_id(prompt), Item(prompt))
            for prompt in (self.prompts if prompts is None else prompts)
        ]
        task = Task(self.task.name, tuple(items))
        rows = answer(policy, task, self.config.sampling, self._data_seed, sampler)
        self.measure(rows, policy, reference)
        return rows

    def measure(
        self, rows: list[Row], policy: Policy | None, reference: Policy | None
    ) -> dict[str, str]:
        """Add every measure to answers that are there already; return those left out, and why.

        Without a reference, or with one that has another tokenizer, there is no KL. The policy is
        needed only by measures that say so.
        """
        if reference is not None and all(row.get("ids") is not None for row in rows):
            known = same_tokens(policy, reference)
            said = self._reference_logprobs(reference, rows) if known else [None] * len(rows)
            for row, value in zip(rows, said, strict=True):
                row["reference_logprob"] = value
        prompts, texts = [row["prompt"] for row in rows], [row["response"] for row in rows]
        for scorer in self.scorers:
            for row, score in zip(rows, scorer.score(prompts, texts), strict=True):
                row[scorer.name] = score
            ensemble_std = getattr(scorer, "ensemble_std", None)
            if ensemble_std is not None:
                for row, value in zip(rows, ensemble_std(prompts, texts), strict=True):
                    row[f"{scorer.name}_std"] = value
            explain = getattr(scorer, "explain", None)
            if explain is not None:
                for row in rows:
                    parts = explain(row["prompt"], row["response"])
                    row |= {f"{scorer.name}.{part}": value for part, value in parts.items()}
        answers = Answers(rows, policy)
        problems = {one.name: add_columns(one, answers) for one in self.measures}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return the means of all measures, and the win rate by each scorer over the baseline."""
        found = {"prompts": float(len(rows))}
        if all(row.get("reference_logprob") is not None for row in rows):
            kl = sequence_kl(
                [row["logprob"] for row in rows], [row["reference_logprob"] for row in rows]
            )
            found |= {"kl": kl.mean, "kl_error": kl.error}
        for name in ("tokens", "words", "finished"):
            found[name] = mean_and_error([row[name] for row in rows]).mean
        for scorer in self.scorers:
            scores = mean_and_error([row[scorer.name] for row in rows])
            found |= {scorer.name: scores.mean, f"{scorer.name}_error": scores.error}
            if f"{scorer.name}_std" in rows[0]:
                stds = [row[f"{scorer.name}_std"] for row in rows]
                found[f"{scorer.name}_std"] = mean_and_error(stds).mean
            if self._baseline:
                points = self.points(rows, scorer.name)
                found[f"{scorer.name}_win_rate"] = mean_and_error(points).mean
        for measure in self.measures:
            found |= figures_of(measure, rows)
        return found

    def points(self, rows: Sequence[Row], scorer: str) -> list[float]:
        """Return the win points of each row over the baseline's answer to the same prompt.

        The same answer is a tie.
        """
        return points_over(rows, self._baseline, scorer)

    @property
    def has_baseline(self) -> bool:
        """Whether there is a baseline to win against."""
        return bool(self._baseline)

    def _reference_logprobs(self, reference: Policy, rows: Sequence[Row]) -> list[float | None]:
        batch = collate(
            [reference.encode(row["prompt"]) for row in rows],
            [row["ids"] for row in rows],
            reference.pad_id,
        )
        temperature = self.config.sampling.temperature
        said = in_parts(
            lambda part: reference.logprobs(part, temperature).logprobs, batch, _MICRO_BATCH
        )
        return [float(value) for value in said.sum(1)]


def same_tokens(policy: Policy | None, reference: Policy) -> bool:
    """Tell whether both read the same ids as the same text; without a policy, it is taken so."""
    if policy is None or policy.tokenizer is reference.tokenizer:
        return True
    return bool(
        policy.tokenizer.get_vocab() == reference.tokenizer.get_vocab()
        and policy.tokenizer.chat_template == reference.tokenizer.chat_template
    )


def baseline_scores(artifact: Artifact) -> dict[str, Row]:
    """Return the baseline's rows by prompt id."""
    return {row["prompt_id"]: row for row in read_samples(artifact)}
