"""The steps of ``plumbline evaluate``: models, tasks, samples, measures, judges, tables."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.evaluate import sample_and_measure
from evaluation.harness import Harness
from evaluation.judges.pair_votes import count_votes
from evaluation.judges.pairs import pair_responses
from evaluation.measures.registry import MEASURES, select_measures
from evaluation.sample_files import SAMPLES, read_samples, write_samples
from evaluation.tasks.benchmarks import BenchmarkConfig, digest_of, run_benchmarks
from evaluation.tasks.sources import file_task
from evaluation.tasks.text_perplexity import measure_texts, texts_of
from plumbline.commands.evaluation import metric_tables
from plumbline.commands.evaluation.evaluation_pages import write_pages
from plumbline.commands.evaluation.judges import JUDGES, WORLD, scorers_of
from plumbline.commands.evaluation.request import (
    NO_LIMIT,
    EvaluateConfig,
    EvaluateRequest,
    check_request,
    is_sampled,
    run_name,
)
from plumbline.config import load
from plumbline.errors import ConfigError
from plumbline.lm.weight_files import check_reward_head
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.calls import Deferred, SourceFile, defer
from plumbline.runs.names import safe_file_name
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.world.checks import ShopFormat
from plumbline.world.tasks import world_task
from recipes._models import find_model

METRICS = "metrics.json"
TABLE = "evaluation.md"


class Evaluated(NamedTuple):
    """What an evaluation came to."""

    folder: Path
    results: dict[str, Any]
    """Figures by task and model, as ``metrics.json`` has them."""
    pages: list[Path]


def run_evaluation(
    request: EvaluateRequest,
    config: EvaluateConfig,
    home: Path,
    out: Path | None,
    *,
    html: bool = False,
) -> Path:
    """Evaluate the models and print a table; return the folder with the results."""
    reporter = Reporter()
    evaluated = evaluate_models(request, config, home, out, reporter, html=html)
    metric_tables.print_metrics(evaluated.results)
    folder = evaluated.folder
    for file in (*evaluated.pages, *(folder / name for name in (SAMPLES, METRICS, TABLE))):
        if file.exists():
            reporter.say(f"  {file}")
    return folder


def evaluate_models(
    request: EvaluateRequest,
    config: EvaluateConfig,
    home: Path,
    out: Path | None,
    reporter: Reporter,
    *,
    html: bool = False,
) -> Evaluated:
    """Evaluate the models; write the results into a folder. ``html``: with a page of them."""
    check_request(request, config)
    run = Run(home, run_name(request, config), "evaluate", config, reporter)
    try:
        folder = out or run.folder
        folder.mkdir(parents=True, exist_ok=True)
        evaluations: dict[str, dict[str, Artifact]] = {}
        results = _results(run, request, config, folder, evaluations)
        write_json(folder / METRICS, results)
        (folder / TABLE).write_text(metric_tables.as_markdown(results), encoding="utf-8")
        pages = []
        if html:
            pages = write_pages(
                evaluations,
                results["reference"],
                request.judge,
                run.stages,
                config.evaluation.confidence,
                folder,
            )
        run.finish({})
    except BaseException as problem:
        run.fail(
            "interrupted" if isinstance(problem, KeyboardInterrupt) else "failed", str(problem)
        )
        raise
    return Evaluated(folder, results, pages)


def _results(
    run: Run,
    request: EvaluateRequest,
    config: EvaluateConfig,
    folder: Path,
    evaluations: dict[str, dict[str, Artifact]],
) -> dict[str, Any]:
    """Return metrics by task and model, write the samples, and fill ``evaluations``."""
    names = _display_names((*request.models, *filter(None, [request.reference])))
    policies = {names[model]: find_model(run, model, "model") for model in request.models}
    baseline: dict[str, Artifact] = {}
    if request.reference is not None:
        baseline = {names[request.reference]: find_model(run, request.reference, "model")}
    rewards = [find_model(run, name, "reward") for name in request.rewards]
    for reward in rewards:
        check_reward_head(reward.path)  # before anything is sampled
    metrics: dict[str, dict[str, dict[str, float | None]]] = {}
    rows: list[dict[str, Any]] = []
    for task in request.tasks:
        if not is_sampled(task):
            metrics[task] = {
                name: dict(_measure_likelihoods(run, task, name, policy, request, config).metrics)
                for name, policy in policies.items()
            }
            continue
        reference = next(iter(baseline.values()), None)
        evaluation_of = _TaskEvaluation(run, request, config, task, reference, rewards)
        metrics[task] = {}
        for name, policy in (baseline | policies).items():
            evaluation, pair_metrics = evaluation_of(name, policy, folder)
            evaluations.setdefault(task, {})[name] = evaluation
            metrics[task][name] = dict(sorted((evaluation.metrics | pair_metrics).items()))
            rows += [{"model": name, "task": task} | row for row in read_samples(evaluation)]
    if rows:
        write_samples(folder / SAMPLES, rows)
    return {
        "models": {name: policy.id for name, policy in policies.items()},
        "reference": next(iter(baseline), None),
        "data_seed": config.data_seed,
        "tasks": metrics,
    }


class _TaskEvaluation:
    """The evaluation of policies on one task: one harness, and the reference's responses."""

    def __init__(
        self,
        run: Run,
        request: EvaluateRequest,
        config: EvaluateConfig,
        task: str,
        reference: Artifact | None,
        rewards: Sequence[Artifact],
    ) -> None:
        self._run, self._request, self._config = run, request, config
        self._task, self._reference = task, reference
        prompts, checker = _prompts(task, config)
        self._harness: dict[str, Any] = {
            "config": config.evaluation,
            "prompts": prompts,
            "scorers": scorers_of(task, rewards, config.data_seed, request.judge),
            "data_seed": config.data_seed,
            "measures": select_measures(config.measures, checker),
        }
        self._baseline = None if reference is None else self._measured("reference", reference)

    def __call__(
        self, name: str, policy: Artifact, folder: Path
    ) -> tuple[Artifact, dict[str, float | None]]:
        """Return the evaluation of one policy, and the metrics of pairs where they are wanted."""
        baseline = self._baseline
        if baseline is None or self._reference is None or policy.id == self._reference.id:
            evaluation = self._measured(name, policy) if baseline is None else baseline
            return evaluation, {}
        evaluation = self._measured(name, policy, baseline=baseline)
        judge = self._request.judge
        if judge is None or not JUDGES[judge].compares_pairs:
            return evaluation, {}
        metrics = self._compare_pairs(name, evaluation, baseline, folder)
        return evaluation, {f"{judge}_{key}": value for key, value in metrics.items()}

    def _measured(self, name: str, policy: Artifact, **more: Any) -> Artifact:
        evaluation = sample_and_measure(
            self._run,
            _place(self._request, self._task, name),
            policy=policy,
            reference=self._reference,
            harness=defer(Harness, **self._harness, **more),
        )
        self._check_measures(evaluation)
        return evaluation

    def _check_measures(self, evaluation: Artifact) -> None:
        """Refuse a measure that was named and does not apply."""
        for name in self._request.measures or ():
            measure = MEASURES[name].load()
            metrics = (metric.partition(".")[0] for metric in evaluation.metrics)
            if measure.name not in metrics:
                needs = ", ".join(measure.needs) or "responses that it applies to"
                raise ConfigError(
                    f"--measures {name}: it does not apply to the task {self._task!r}. It needs "
                    f"{needs}, with a value on at least one row. Leave it out, or give a task (and "
                    "a --reference) that has this."
                )

    def _compare_pairs(
        self, name: str, evaluation: Artifact, baseline: Artifact, folder: Path
    ) -> dict[str, float | None]:
        """Let people or an LLM compare pairs; return the metrics where there are labels already."""
        place, config = _place(self._request, self._task, name), self._config
        pairs = self._run.make(
            f"pairs/{place}",
            pair_responses,
            samples=evaluation,
            baseline_samples=baseline,
            at_most=config.pairs,
            data_seed=config.data_seed,
        )
        labels = self._labels(pairs, place, folder)
        if labels is None:
            return {}
        votes = self._run.make(
            f"verdicts/{place}",
            count_votes,
            samples=evaluation,
            baseline_samples=baseline,
            labels=labels,
            confidence=config.evaluation.confidence,
            resamples=config.evaluation.resamples,
            data_seed=config.data_seed,
        )
        return votes.metrics

    def _labels(self, pairs: Artifact, place: str, folder: Path) -> Artifact | SourceFile | None:
        """Return the labels on pairs; None where people have not given them yet."""
        if JUDGES[str(self._request.judge)].asks_people:
            if self._request.labels is not None:
                return SourceFile(self._request.labels / "labels.parquet")
            target = folder / f"pairs-{place.replace('/', '-')}.parquet"
            shutil.copyfile(pairs.path / "train.parquet", target)
            self._run.reporter.say(
                f"    {target} holds the pairs, blind. Send them to people by `plumbline annotate "
                f"push {target}`, fetch their labels by `plumbline annotate pull --out FOLDER`, "
                "and give this command again with --labels FOLDER."
            )
            return None
        from annotation.llm_judge.config import JudgeConfig
        from annotation.llm_judge.judge import judge_pairs

        return self._run.make(
            f"labels/{place}",
            judge_pairs,
            config=load(JudgeConfig, None, self._request.judge_overrides),
            pairs=pairs,
            data_seed=self._config.data_seed,
        )


def _prompts(task: str, config: EvaluateConfig) -> tuple[Deferred[Any], Deferred[Any] | None]:
    """Return the prompts of a task and its checker, deferred."""
    if task == WORLD:
        prompts = defer(world_task, data_seed=config.data_seed, count=config.world_prompts)
        return prompts, defer(ShopFormat, data_seed=config.data_seed)
    file = SourceFile(Path(task).expanduser())
    return defer(file_task, file=file, config=config.file, data_seed=config.data_seed), None


def _measure_likelihoods(
    run: Run,
    task: str,
    name: str,
    policy: Artifact,
    request: EvaluateRequest,
    config: EvaluateConfig,
) -> Artifact:
    """Return the artefact of a task without sampled responses: plain texts or a benchmark."""
    kind, _, argument = task.partition(":")
    place = _place(request, task, name)
    if kind == "text":
        file = SourceFile(Path(argument).expanduser())
        return run.make(
            f"texts/{place}",
            measure_texts,
            policy=policy,
            texts=defer(texts_of, file=file, column=config.texts.column),
            config=config.texts,
        )
    limit = config.evaluation.prompts
    benchmarks = BenchmarkConfig(
        tasks=tuple(part for part in argument.split(",") if part),
        folder=request.tasks_folder,
        few_shot=config.few_shot,
        limit=limit if limit < NO_LIMIT else None,
    )
    return run.make(
        f"benchmarks/{place}",
        run_benchmarks,
        policy=policy,
        config=benchmarks,
        folder_digest=digest_of(request.tasks_folder),
        seed=config.data_seed,
    )


def _display_names(names: Sequence[str]) -> dict[str, str]:
    """Return the names of models in tables: the last part of a folder's path where it is unique."""
    short = {name: Path(name).name if Path(name).is_dir() else name for name in names}
    repeated = [name for name in short if list(short.values()).count(short[name]) > 1]
    return short | {name: name for name in repeated}


def _place(request: EvaluateRequest, task: str, name: str) -> str:
    """Return where a task's results of a model stand, as names of stages and files.

    A task is known by the last part of its path, unless another task has the same.
    """
    short = [Path(other).name for other in request.tasks]
    known = Path(task).name if short.count(Path(task).name) == 1 else task
    return f"{safe_file_name(known)}/{safe_file_name(name)}"
