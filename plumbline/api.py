"""Plumbline from Python: the stages, evaluations and comparisons as functions.

    from plumbline.api import evaluate, train_dpo

    policy = train_dpo("MODEL", "preferences.csv", columns={"prompt": "question"}, lr=5e-5)
    evaluate(policy, prompts="prompts.jsonl", reference="MODEL")

They do what the commands of the same names do, with the same settings, in the same folder of runs.
A finished stage is reused, and a stopped one resumes. A model is a hub name, a folder,
``run:stage``, an artefact's id, or what another of these functions returned; so are data, and a
file. Errors that you can act on are `PlumblineError`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.comparison.recipe_runs import find_run
from plumbline.api_results import Comparison, Evaluation, StageResult
from plumbline.commands import recipe_book
from plumbline.data.records import Conversation
from plumbline.errors import PlumblineError
from plumbline.runs.calls import defer, resolve
from plumbline.runs.progress import Reporter
from plumbline.runs.run import RunRecord, flat_settings

if TYPE_CHECKING:
    import pandas as pd

    from plumbline.hooks import Scorer as AnyScorer
    from plumbline.lm.policy import Policy

__all__ = [
    "Comparison",
    "Evaluation",
    "PlumblineError",
    "Sampler",
    "Scorer",
    "StageResult",
    "compare",
    "evaluate",
    "load_data",
    "load_run",
    "sample_pairs",
    "train_dpo",
    "train_kto",
    "train_ppo",
    "train_reward_model",
    "train_sft",
]

Place = str | os.PathLike[str]
"""A model or data: a hub name, a path, ``run:stage``, an artefact's id, or a result."""
Prompt = str | Conversation
"""A question as text, or a conversation: ``[{"role": "user", "content": …}, …]``."""


def train_sft(model: Place, data: Place, **options: Any) -> StageResult:
    """Train a policy on demonstrations.

    Options, here and in the other trainings:

    - ``eval_data``: held-out data; else a share of the prompts is held out.
    - ``columns``: which column holds which part, as in ``{"prompt": "question"}``.
    - ``lr``, ``epochs``, ``batch_size``, ``max_length``, ``tuning``, ``lora_rank``, ``lora_alpha``,
      ``report_to``, ``seed``: the options of ``plumbline train sft``.
    - ``settings``: any other settings, as ``{"sft.training.warmup_share": 0.1}`` or nested.
      ``plumbline config train_sft`` lists them.
    - ``config``: a file of settings (YAML).
    - ``name``, ``home``: the run's name, and the folder of runs (``runs``, or ``PLUMBLINE_HOME``).
    - ``quiet``: print nothing.
    """
    return _train("train_sft", model=model, data=data, **options)


def train_reward_model(model: Place, data: Place, **options: Any) -> StageResult:
    """Train a reward model on preferences. Options are those of `train_sft`."""
    return _train("train_reward", model=model, data=data, **options)


def train_dpo(
    model: Place,
    data: Place,
    *,
    reward: Place | None = None,
    reference: Place | None = None,
    **options: Any,
) -> StageResult:
    """Train a policy on preferences by direct preference optimisation.

    ``reward`` is a reward model that scores responses in evaluations, ``reference`` what the policy
    is compared with (None: ``model``). Further options are ``beta``, ``loss`` and those of
    `train_sft`.
    """
    return _train(
        "train_dpo", model=model, data=data, reward=reward, reference=reference, **options
    )


def train_kto(
    model: Place, data: Place, *, reward: Place | None = None, **options: Any
) -> StageResult:
    """Train a policy on single responses that were liked or not, by KTO or a relative.

    ``reward`` is a reward model that scores responses in evaluations. Further options are ``beta``,
    ``loss`` and those of `train_sft`, without ``eval_data``.
    """
    return _train("train_kto", model=model, data=data, reward=reward, **options)


def train_ppo(
    model: Place, data: Place, *, reward: Place, reference: Place | None = None, **options: Any
) -> StageResult:
    """Train a policy on prompts by PPO against a reward model.

    ``reward`` is a reward model of yours, or any sequence classifier; ``reference``
    is what KL is measured to (None: ``model``). Further options are ``kl``, ``rounds`` and those of
    `train_sft`.
    """
    return _train(
        "train_ppo", model=model, data=data, reward=reward, reference=reference, **options
    )


def sample_pairs(model: Place, data: Place, **options: Any) -> StageResult:
    """Sample pairs of responses to prompts, for people or a judge to compare.

    With ``reward``, a reward model, the pairs are preferences. Further options are ``pairing``,
    ``prompts``, ``responses``, ``temperature``, ``max_length``, ``columns``, ``seed``, and the last
    four of `train_sft`.
    """
    return _train("sample_pairs", model=model, data=data, **options)


def evaluate(
    models: Place | Sequence[Place],
    *,
    prompts: Place | Sequence[Place] | None = None,
    tasks: Sequence[str] = (),
    measures: Sequence[str] | None = None,
    reference: Place | None = None,
    reward: Place | Sequence[Place] = (),
    judge: str | None = None,
    labels: Place | None = None,
    count: int | None = None,
    split: str = "all",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    judge_settings: Mapping[str, Any] | None = None,
    out: Place | None = None,
    home: Place | None = None,
    html: bool = False,
    quiet: bool = False,
) -> Evaluation:
    """Evaluate models. The arguments are those of ``plumbline evaluate``.

    Without ``prompts`` and ``tasks``, the task is the embedded world.
    """
    from plumbline.commands.evaluation import request, run_evaluation

    evaluate_request = request.EvaluateRequest(
        models=_names(models),
        tasks=(*tasks, *_names(prompts)) or ("world",),
        reference=None if reference is None else _name(reference),
        rewards=_names(reward),
        judge=judge,
        labels=None if labels is None else Path(labels),
        tasks_folder=None,
        judge_overrides=tuple(_overrides(judge_settings)),
        measures=None if measures is None else tuple(measures),
    )
    config = request.evaluate_settings(evaluate_request, count, split, seed, _overrides(settings))
    with _scripts_need_no_guard():
        evaluated = run_evaluation.evaluate_models(
            evaluate_request,
            config,
            _home(home),
            None if out is None else Path(out),
            Reporter(quiet=quiet),
            html=html,
        )
    return Evaluation(evaluated.folder, evaluated.results)


def compare(
    runs: Place | StageResult | Sequence[Place | StageResult] = (),
    *,
    samples: Place | Sequence[Place] = (),
    judge: str | None = None,
    budget: str = "kl",
    baseline: str | None = None,
    confidence: float = 0.95,
    title: str | None = None,
    out: Place | None = None,
    home: Place | None = None,
) -> Comparison:
    """Compare the policies of runs and samples of other tools. See ``plumbline compare``.

    ``runs`` are names of runs, or what `train_dpo` and `train_ppo` returned.
    """
    from evaluation.comparison.costs import PriceConfig
    from plumbline.commands.evaluation.compare import write_comparison

    compared = [runs] if isinstance(runs, str | StageResult | os.PathLike) else list(runs)
    content, folder = write_comparison(
        _home(home),
        [
            run.run.folder.name if isinstance(run, StageResult) else os.fspath(run)
            for run in compared
        ],
        [Path(name) for name in _names(samples)],
        budget=budget,
        baseline=baseline,
        out=None if out is None else Path(out),
        title=title,
        judge=judge,
        confidence=confidence,
        common_prompts=False,
        allowed=(),
        prices=PriceConfig(),
    )
    return Comparison(folder, content)


class Scorer:
    """A scorer of responses.

    ``model`` is a reward model of yours, any classifier with one label, the address of a reward
    server (``plumbline reward serve``), or a file of terms.
    """

    def __init__(self, model: Place, *, batch_size: int = 64, home: Place | None = None) -> None:
        """Name a scorer; ``batch_size`` is that of a reward model which is named alone."""
        from recipes._scorers import named_scorer
        from reward.load_scorer import reward_scorer

        self._scorer_call = named_scorer(_name(model), lambda name: _model_folder(name, home))
        if self._scorer_call.function is reward_scorer:
            self._scorer_call = defer(
                reward_scorer, **self._scorer_call.arguments, batch_size=batch_size
            )

    @cached_property
    def _scorer(self) -> AnyScorer:
        scorer: AnyScorer = resolve(self._scorer_call)
        return scorer

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """Return the reward of each response to the prompt of the same place."""
        return self._scorer.score([_conversation(prompt) for prompt in prompts], responses)


class Sampler:
    """A policy that responds to prompts."""

    def __init__(self, model: Place, *, home: Place | None = None) -> None:
        self._folder = _model_folder(model, home)

    @cached_property
    def policy(self) -> Policy:
        """The policy with its tokenizer, loaded when it is first asked for."""
        from plumbline.lm.policy import Policy
        from plumbline.quiet import silence_libraries

        silence_libraries()
        return Policy.load(self._folder)

    def respond(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int = 0,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float | None = None,
    ) -> list[str]:
        """Return one response to each prompt, sampled; the same seed gives the same responses."""
        from plumbline.lm.generation import SamplingConfig
        from plumbline.seeds import derive

        sampling = SamplingConfig(
            max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p
        )
        ids = [self.policy.encode(_conversation(prompt)) for prompt in prompts]
        seeds = [derive(seed, "respond", row) for row in range(len(ids))]
        return [
            self.policy.decode(generation.ids)
            for generation in self.policy.sample(ids, seeds, sampling)
        ]


def load_data(
    place: Place, use: str = "demonstrations", *, columns: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Read data in any known format: one row for each example, one column for each part.

    ``use`` is what it is read for: demonstrations, preferences, prompts, pairs or labels. Rows that
    cannot be read are in ``.attrs["dropped"]`` with their reasons.
    """
    import pandas as pd

    from plumbline.data.reader import DataFormatConfig, ExampleReader
    from plumbline.data.sources import source_at
    from plumbline.data.uses import USES

    config = DataFormatConfig(columns=dict(columns or {}))
    reader = ExampleReader(source_at(_name(place)), USES[use], config)
    parts = sorted(USES[use].needs | USES[use].takes)
    frame = pd.DataFrame(
        [{part: getattr(row.example, part, None) for part in parts} for row in reader]
    ).dropna(axis="columns", how="all")
    frame.attrs["dropped"] = list(reader.report.dropped.entries())
    return frame


def load_run(name: str, *, home: Place | None = None) -> RunRecord:
    """Return a run of any recipe by its name: its stages' artefacts, its settings, its state."""
    return find_run(_home(home), name)


def _train(recipe: str, **options: Any) -> StageResult:
    """Run a recipe of one stage with options by their short names."""
    values = {name: value for name, value in options.items() if value is not None}
    config, name, home = (values.pop(key, None) for key in ("config", "name", "home"))
    quiet, settings = values.pop("quiet", False), values.pop("settings", None)
    values |= {
        key: _name(values[key])
        for key in ("model", "data", "eval_data", "reference", "reward")
        if key in values
    }
    script = recipe_book.find(recipe)
    overrides = [*recipe_book.from_short_names(script, values), *_overrides(settings)]
    with _scripts_need_no_guard():
        run = recipe_book.execute(
            script,
            None if config is None else os.fspath(config),
            overrides,
            _home(home),
            Reporter(quiet=quiet),
            name,
        )
    return StageResult(RunRecord(run.folder))


@contextmanager
def _scripts_need_no_guard() -> Iterator[None]:
    """Let a script without ``if __name__ == "__main__":`` start stages.

    Each runs in a process of its own, which would import the script and start it once more. None of
    these stages needs anything of it.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.get(name) for name in ("__file__", "__spec__")}
    main.__dict__.pop("__file__", None)
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update({name: value for name, value in hidden.items() if value is not None})


def _overrides(settings: Mapping[str, Any] | None) -> list[str]:
    return [f"{key}={value}" for key, value in flat_settings(settings or {}).items()]


def _home(home: Place | None) -> Path:
    return Path(os.environ.get("PLUMBLINE_HOME", "runs") if home is None else home)


def _name(place: Place) -> str:
    return os.fspath(place)


def _names(places: Place | Sequence[Place] | None) -> tuple[str, ...]:
    if places is None:
        return ()
    if isinstance(places, str | os.PathLike):
        return (_name(places),)
    return tuple(_name(place) for place in places)


def _model_folder(model: Place, home: Place | None) -> Path:
    from recipes._models import find_model_folder

    return find_model_folder(_home(home), _name(model))


def _conversation(prompt: Prompt) -> Conversation:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
