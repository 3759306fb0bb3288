"""Tune DPO and PPO with the same budget, so that neither wins by more tuning.

Each method has a space of settings and the same budget: a number of trials, drawn by the same
quasi-random sequence and trained with the same tuning seeds, or a number of tokens or seconds.
Trials are evaluated on prompts and seeds that the later comparison never uses. The winners are
written as a config of that comparison, `tuned.yaml` in the folder of the run.

    plumbline run sweep --config tuning
    plumbline run dpo_vs_ppo --config RUN/tuned.yaml

Trials run in a process pool on this machine, or on many machines by Ray (docs/sweeps.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import model_validator

from evaluation.evaluate import evaluate_policy
from evaluation.harness import Harness
from evaluation.sweeps.results import Trial, best_trial, load_trial, report_sweep
from evaluation.sweeps.search_space import (
    Range,
    SearchConfig,
    Settings,
    count_within_budget,
    draw_settings,
    nest_settings,
    setting_at,
)
from plumbline.config import changed
from plumbline.errors import ConfigError, PlumblineError
from plumbline.runs.calls import defer
from plumbline.runs.pool import Job, PoolConfig, make_all
from plumbline.runs.run import Run
from preference.dpo import train_dpo
from recipes._shared import SharedStages, shared_stages
from recipes.dpo_vs_ppo import DpoVsPpoConfig
from rl.ppo import train_ppo

METHODS = ("dpo", "ppo")
SPACES: dict[str, dict[str, Range]] = {
    "dpo": {
        "beta": Range(low=0.02, high=0.5, scale="log"),
        "training.learning_rate": Range(low=1e-4, high=3e-3, scale="log"),
    },
    "ppo": {
        "kl.coefficient": Range(low=0.01, high=0.25, scale="log"),
        "learning_rate": Range(low=1e-4, high=3e-3, scale="log"),
    },
}


class SweepConfig(DpoVsPpoConfig):
    """All settings of this recipe: those of the comparison, and how they are tuned.

    The first trial of each method uses ``dpo`` and ``ppo`` unchanged.
    """

    search: SearchConfig = SearchConfig(spaces=SPACES)
    """What is tuned, at which cost."""
    pool: PoolConfig = PoolConfig()
    """Where trials run, and how many at once."""

    @model_validator(mode="after")
    def _spaces_are_of_methods(self) -> SweepConfig:
        unknown = sorted(set(self.search.spaces) - set(METHODS))
        if unknown:
            raise ValueError(f"search.spaces has {unknown}, but the methods are {list(METHODS)}")
        for method, space in self.search.spaces.items():
            for key, a_range in space.items():
                try:
                    for end in (0.0, 1.0 - 1e-9):
                        tuned(self, method, {key: a_range.at(end)})
                except ConfigError as error:
                    raise ValueError(f"search.spaces.{method}, {key!r}: {error}") from None
        shared = sorted(set(self.search.seeds) & set(self.seeds))
        if shared:
            raise ValueError(
                f"search.seeds and seeds both have {shared}; settings chosen on a seed of the "
                "comparison would look better there than they are"
            )
        return self


CONFIG = SweepConfig
ESSENTIAL = (
    "seeds", "data_seed", "base.name_or_path", "files.folder", "files.demonstrations",
    "files.preferences", "search.spaces", "search.seeds", "search.prompts", "search.kl_limit",
    "pool.kind", "pool.workers", "pool.threads", "evaluation.prompts", "budget.by",
)  # fmt: skip


class Plan(NamedTuple):
    """A trial that has not run yet."""

    method: str
    number: int
    settings: Settings

    def name(self, seed: int) -> str:
        """Return the name of the stage that trains the trial with a seed."""
        return f"{self.method}/trial-{self.number}/seed-{seed}"


def main(run: Run, config: SweepConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. The shared stages of the comparison, and a judge with prompts of its own.
    shared = shared_stages(run, config)
    judge = defer(
        Harness,
        config=config.evaluation.model_copy(
            update={"prompts": config.search.prompts, "prompts_during_training": 2}
        ),
        prompts=shared.source.spare_prompts(config.search.prompts, config.evaluation.prompts),
        scorers=list(shared.source.gold) or [shared.scorer],
        data_seed=config.data_seed,
    )

    # 2. The settings of each method in the order of their trials; the first are unchanged.
    methods = [method for method in METHODS if method in config.search.spaces]
    waiting = {method: plan_trials(config, method) for method in methods}

    # 3. Trials, until the budget of each method is used up.
    done: dict[str, list[dict[str, Any]]] = {method: [] for method in waiting}
    while any(waiting.values()):
        wave = [plan for plans in waiting.values() for plan in plans[: at_once(config)]]
        for plan, trial in zip(wave, run_trials(run, config, shared, judge, wave), strict=True):
            waiting[plan.method].remove(plan)
            done[plan.method].append(trial)
        for method, trials in done.items():
            counted = within_budget(config, shared, trials)
            if counted < len(trials):
                done[method], waiting[method] = trials[:counted], []

    # 4. The winners, as a config of the comparison.
    best = {method: winner(config, shared, method, trials) for method, trials in done.items()}
    values = {name: getattr(config, name) for name in DpoVsPpoConfig.model_fields}
    values |= {method: tuned(config, method, trial.settings) for method, trial in best.items()}
    report = run.make(
        "report",
        report_sweep,
        title="DPO and PPO, tuned with the same budget",
        recipe="dpo_vs_ppo",
        judge=shared.judge,
        search=config.search,
        methods=done,
        tuned=DpoVsPpoConfig(**values),
    )
    summary = run.publish(report)
    return {"budget": summary["budget"], "rule": summary["rule"]} | {
        method: {"trial": trial.number, "settings": trial.settings, shared.judge: trial.score}
        for method, trial in best.items()
    }


def plan_trials(config: SweepConfig, method: str) -> list[Plan]:
    """Return the trials of a method in order; the first has the settings unchanged."""
    space, search = config.search.spaces[method], config.search
    drawn = draw_settings(space, max_trials(config) - 1, search.draw_seed)
    settings = [unchanged_settings(config, method), *drawn]
    return [Plan(method, number, values) for number, values in enumerate(settings)]


def run_trials(
    run: Run, config: SweepConfig, shared: SharedStages, judge: Any, wave: Sequence[Plan]
) -> list[dict[str, Any]]:
    """Train and evaluate trials with every tuning seed; return the arguments of `load_trial`.

    A trial whose training fails (because it diverged, say) counts as failed; the sweep continues.
    """
    failures: dict[str, PlumblineError] = {}
    policies = make_all(
        run,
        {
            plan.name(seed): training(plan.method, config, shared, judge, plan.settings, seed)
            for plan in wave
            for seed in config.search.seeds
        },
        config.pool,
        failures,
    )
    evaluations = make_all(
        run,
        {
            f"evaluation/{name}": Job(
                evaluate_policy,
                {
                    "policy": policy,
                    "reference": shared.sft_policy,
                    "harness": judge,
                    "data_seed": config.data_seed,
                },
            )
            for name, policy in policies.items()
        },
        config.pool,
        failures,
    )
    trials = []
    for plan in wave:
        names = [plan.name(seed) for seed in config.search.seeds]
        failed = [
            failures[n] for name in names for n in (name, f"evaluation/{name}") if n in failures
        ]
        trials.append(
            {
                "number": plan.number,
                "settings": plan.settings,
                "artifacts": [
                    (policies[name], evaluations[f"evaluation/{name}"])
                    for name in names
                    if f"evaluation/{name}" in evaluations
                ],
                "failure": str(failed[0]).partition("\n")[0] if failed else "",
            }
        )
    return trials


def training(
    method: str,
    config: SweepConfig,
    shared: SharedStages,
    judge: Any,
    settings: Settings,
    seed: int,
) -> Job:
    """Return the training of one trial with one seed. It is evaluated at the end only."""
    arguments: dict[str, Any] = {
        "config": changed(tuned(config, method, settings), {"evaluations": 0}),
        "policy": shared.sft_policy,
        "hook": judge,
        "seed": seed,
    }
    if method == "dpo":
        return Job(train_dpo, arguments | {"preferences": shared.preferences})
    return Job(train_ppo, arguments | {"prompts": shared.rl_prompts, "scorer": shared.scorer})


def tuned(config: SweepConfig, method: str, settings: Settings) -> Any:
    """Return the config of a method with the settings of a trial."""
    return changed(getattr(config, method), nest_settings(settings))


def unchanged_settings(config: SweepConfig, method: str) -> Settings:
    """Return the values of the searched settings without a sweep."""
    values = getattr(config, method).model_dump(mode="json")
    return {key: setting_at(values, key) for key in sorted(config.search.spaces[method])}


def max_trials(config: SweepConfig) -> int:
    """Return the largest number of trials of a method."""
    budget = config.search.budget
    return max(1, int(budget.limit)) if budget.by == "trials" else budget.max_trials


def at_once(config: SweepConfig) -> int:
    """Return how many trials of a method start before their cost is checked."""
    by_count = config.search.budget.by == "trials"
    return max_trials(config) if by_count else max(1, config.pool.workers // 2)


def within_budget(
    config: SweepConfig, shared: SharedStages, trials: Sequence[Mapping[str, Any]]
) -> int:
    """Return how many trials, in order, ended within the budget.

    Raises `ConfigError` where not even the first did.
    """
    budget = config.search.budget
    costs = [load_trial(judge=shared.judge, **trial).cost(budget.by) for trial in trials]
    counted = count_within_budget(costs, budget.limit)
    if costs and counted == 0:
        raise ConfigError(
            f"The first trial took {costs[0]:,.0f} {budget.by}, more than the whole budget of "
            f"{budget.limit:,.0f}. Raise search.budget.limit."
        )
    return counted


def winner(
    config: SweepConfig, shared: SharedStages, method: str, trials: Sequence[Mapping[str, Any]]
) -> Trial:
    """Return the trial whose settings a method has in the comparison."""
    best = best_trial(
        [load_trial(judge=shared.judge, **trial) for trial in trials], config.search.kl_limit
    )
    if best is None:
        raise ConfigError(
            f"Every trial of {method} failed; the first said: {trials[0]['failure']} Change "
            f"search.spaces.{method}, or the settings of {method}."
        )
    return best.trial
