"""What ``plumbline evaluate`` does, in order: models, tasks, samples, measures, judges, tables."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from annotation.llm_judge.config import JudgeConfig
from annotation.llm_judge.judge import judge_pairs
from evaluation.evaluate import sample_and_measure
from evaluation.harness import Harness
from evaluation.judges.pairs import pair_answers
from evaluation.judges.verdicts import read_verdicts
from evaluation.measures.registry import REGISTRY, chosen
from evaluation.samples import SAMPLES, read_samples, write_samples
from evaluation.tasks.benchmarks import BenchmarkConfig, digest_of, run_benchmarks
from evaluation.tasks.sources import file_task
from evaluation.tasks.texts import measure_texts, texts_of
from plumbline.commands.evaluation import tables
from plumbline.commands.evaluation.model_names import find_model
from plumbline.commands.evaluation.request import (
    BY_PAIRS,
    EVERY,
    WORLD,
    EvaluateConfig,
    Request,
    check,
    is_sampled,
    run_name,
)
from plumbline.config import load
from plumbline.errors import ConfigError
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.calls import Deferred, SourceFile, defer
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.world.checks import ShopFormat
from plumbline.world.gold import GoldUtility
from plumbline.world.tasks import world_task
from reward.ensemble import EnsembleScorer
from reward.scorer import RewardModelScorer

FIGURES = "figures.json"
TABLE = "evaluation.md"


def evaluate(request: Request, config: EvaluateConfig, home: Path, out: Path | None) -> Path:
    """Judge the models; return the folder with the results."""
    check(request)
    reporter = Reporter()
    run = Run(home, run_name(request, config), "evaluate", config, reporter)
    try:
        folder = out or run.folder
        folder.mkdir(parents=True, exist_ok=True)
        results = _results(run, request, config, folder)
        write_json(folder / FIGURES, results)
        (folder / TABLE).write_text(tables.markdown(results), encoding="utf-8")
        run.finish({})
    except BaseException as problem:
        run.fail(
            "interrupted" if isinstance(problem, KeyboardInterrupt) else "failed", str(problem)
        )
        raise
    tables.show(results)
    for name in (SAMPLES, FIGURES, TABLE):
        if (folder / name).exists():
            reporter.say(f"  {folder / name}")
    return folder


def _results(run: Run, request: Request, config: EvaluateConfig, folder: Path) -> dict[str, Any]:
    """Return figures by task and model, and write the samples."""
    shown = _shown((*request.models, *filter(None, [request.reference])))
    policies = {shown[name]: find_model(run, name, "model") for name in request.models}
    reference = None if request.reference is None else find_model(run, request.reference, "model")
    against = None if request.reference is None else shown[request.reference]
    rewards = [find_model(run, name, "reward") for name in request.rewards]
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    rows: list[dict[str, Any]] = []
    for task in request.tasks:
        if not is_sampled(task):
            found[task] = {
                name: dict(_unsampled(run, task, name, policy, request, config).metrics)
                for name, policy in policies.items()
            }
            continue
        judged = _Judged(run, request, config, task, reference, rewards)
        found[task] = {}
        given = {} if reference is None or against is None else {against: reference}
        for name, policy in (given | policies).items():
            evaluation, extra = judged.of(name, policy, folder)
            found[task][name] = dict(sorted((evaluation.metrics | extra).items()))
            rows += [{"model": name, "task": task} | row for row in read_samples(evaluation)]
    if rows:
        write_samples(folder / SAMPLES, rows)
    return {
        "models": {name: policy.id for name, policy in policies.items()},
        "reference": against,
        "data_seed": config.data_seed,
        "tasks": found,
    }


class _Judged:
    """One sampled task: its harness, and the reference's answers to win against."""

    def __init__(
        self,
        run: Run,
        request: Request,
        config: EvaluateConfig,
        task: str,
        reference: Artifact | None,
        rewards: Sequence[Artifact],
    ) -> None:
        self._run, self._request, self._config = run, request, config
        self._task, self._reference = task, reference
        self._prompts, checker = _prompts(task, config)
        self._harness: dict[str, Any] = {
            "config": config.evaluation,
            "prompts": self._prompts,
            "scorers": _scorers(task, request, config, rewards),
            "data_seed": config.data_seed,
            "measures": chosen(config.measures, checker),
        }
        self._baseline = None if reference is None else self._measured("reference", reference)

    def of(
        self, name: str, policy: Artifact, folder: Path
    ) -> tuple[Artifact, dict[str, float | None]]:
        """Return the evaluation of one policy, and what pairs say where they were asked for."""
        baseline = self._baseline
        if baseline is None or self._reference is None or policy.id == self._reference.id:
            evaluation = self._measured(name, policy) if baseline is None else baseline
            return evaluation, {}
        evaluation = self._measured(name, policy, baseline=baseline)
        if self._request.judge not in BY_PAIRS:
            return evaluation, {}
        figures = self._compared(name, evaluation, baseline, folder)
        return evaluation, {f"{self._request.judge}_{key}": v for key, v in figures.items()}

    def _measured(self, name: str, policy: Artifact, **more: Any) -> Artifact:
        evaluation = sample_and_measure(
            self._run,
            f"{_slug(self._task)}/{_slug(name)}",
            policy=policy,
            reference=self._reference,
            harness=defer(Harness, **self._harness, **more),
        )
        self._check_measures(evaluation)
        return evaluation

    def _check_measures(self, evaluation: Artifact) -> None:
        """Refuse a measure that was asked for by name and could not be taken."""
        for name in self._request.asked_for or ():
            if not any(f == name or f.startswith(f"{name}.") for f in evaluation.metrics):
                entry = REGISTRY[name].measure
                needs = ", ".join(entry.function(**entry.arguments).needs) or "answers of its kind"
                raise ConfigError(
                    f"--measures {name}: it could not be taken on the task {self._task!r}. It "
                    f"needs {needs}, with a value on at least one row. Leave it out, or give a "
                    "task (and a --reference) that has this."
                )

    def _compared(
        self, name: str, ours: Artifact, theirs: Artifact, folder: Path
    ) -> dict[str, float | None]:
        """Put pairs before people or an LLM; return what came of it, if it is there yet."""
        place, config = f"{_slug(self._task)}/{_slug(name)}", self._config
        pairs = self._run.make(
            f"pairs/{place}",
            pair_answers,
            ours=ours,
            theirs=theirs,
            at_most=config.pairs,
            data_seed=config.data_seed,
        )
        labels: Artifact | SourceFile
        if self._request.judge == "people":
            if self._request.labels is None:
                target = folder / f"pairs-{place.replace('/', '-')}.parquet"
                shutil.copyfile(pairs.path / "train.parquet", target)
                self._run.reporter.say(
                    f"    {target} holds the pairs, blind. Send them to people by `plumbline "
                    f"annotate push {target}`, fetch their labels by `plumbline annotate pull "
                    "--out FOLDER`, and give this command again with --labels FOLDER."
                )
                return {}
            labels = SourceFile(self._request.labels / "labels.parquet")
        else:
            labels = self._run.make(
                f"labels/{place}",
                judge_pairs,
                config=load(JudgeConfig, None, self._request.judge_overrides),
                pairs=pairs,
                data_seed=config.data_seed,
            )
        verdicts = self._run.make(
            f"verdicts/{place}",
            read_verdicts,
            ours=ours,
            theirs=theirs,
            labels=labels,
            confidence=config.evaluation.confidence,
            resamples=config.evaluation.resamples,
            data_seed=config.data_seed,
        )
        return verdicts.metrics


def _prompts(task: str, config: EvaluateConfig) -> tuple[Deferred[Any], Deferred[Any] | None]:
    """Return a task's prompts and its checker, deferred."""
    if task == WORLD:
        prompts = defer(world_task, data_seed=config.data_seed, count=config.world_prompts)
        return prompts, defer(ShopFormat, data_seed=config.data_seed)
    file = SourceFile(Path(task).expanduser())
    return defer(file_task, file=file, config=config.file, data_seed=config.data_seed), None


def _scorers(
    task: str, request: Request, config: EvaluateConfig, rewards: Sequence[Artifact]
) -> list[Deferred[Any]]:
    """Return the scorers of a task, deferred; the one that decides comes first."""
    found: dict[str, Deferred[Any]] = {}
    if task == WORLD:
        found["gold"] = defer(GoldUtility, data_seed=config.data_seed)
    if len(rewards) == 1:
        found["reward"] = defer(RewardModelScorer, model=rewards[0])
    elif rewards:
        found["ensemble"] = defer(EnsembleScorer, models=list(rewards))
    return [found[name] for name in sorted(found, key=lambda name: name != request.judge)]


def _unsampled(
    run: Run, task: str, name: str, policy: Artifact, request: Request, config: EvaluateConfig
) -> Artifact:
    kind, _, what = task.partition(":")
    place = f"{_slug(task)}/{_slug(name)}"
    if kind == "text":
        return run.make(
            f"texts/{place}",
            measure_texts,
            policy=policy,
            texts=defer(
                texts_of, file=SourceFile(Path(what).expanduser()), column=config.texts.column
            ),
            config=config.texts,
        )
    benchmarks = BenchmarkConfig(
        tasks=tuple(part for part in what.split(",") if part),
        folder=request.tasks_folder,
        few_shot=config.few_shot,
        limit=config.evaluation.prompts if config.evaluation.prompts < EVERY else None,
    )
    return run.make(
        f"benchmarks/{place}",
        run_benchmarks,
        policy=policy,
        config=benchmarks,
        folder_digest=digest_of(request.tasks_folder),
        seed=config.data_seed,
    )


def _shown(names: Sequence[str]) -> dict[str, str]:
    """Return what models are called: a folder by its last name, where that tells them apart."""
    short = {name: Path(name).name if Path(name).is_dir() else name for name in names}
    same = [name for name in short if list(short.values()).count(short[name]) > 1]
    return short | {name: name for name in same}


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in Path(name).name or name)
