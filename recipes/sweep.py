"""Tune DPO and PPO with the same budget, so that neither wins by having been tuned more.

Each method has a space of settings and the same budget: as many trials, drawn by the same
quasi-random sequence and trained with the same tuning seeds, or as many tokens or seconds. Trials
are judged on prompts and seeds that the comparison afterwards never uses. What wins is written as
a config of that comparison, `tuned.yaml` in the run's folder.

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
from evaluation.sweeps.results import Trial, choose, report_sweep, trial_of
from evaluation.sweeps.search_space import (
    Range,
    SearchConfig,
    Settings,
    draw,
    nested,
    value_at,
    within,
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
    """Everything that may vary in this recipe: the comparison's settings, and how they are tuned.

    ``dpo`` and ``ppo`` are what the first trial of each takes as it stands.
    """

    search: SearchConfig = SearchConfig(spaces=SPACES)
    """What is tuned, and at what cost."""
    pool: PoolConfig = PoolConfig()
    """Where trials run, and how many at once."""

    @model_validator(mode="after")
    def _spaces_are_of_methods(self) -> SweepConfig:
        strange = sorted(set(self.search.spaces) - set(METHODS))
        if strange:
            raise ValueError(f"search.spaces has {strange}, but the methods are {list(METHODS)}")
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


class Plan(NamedTuple):
    """A trial to be made."""

    method: str
    number: int
    settings: Settings

    def name(self, seed: int) -> str:
        """Return the name of the stage that trains it with a seed."""
        return f"{self.method}/trial-{self.number}/seed-{seed}"


def main(run: Run, config: SweepConfig) -> dict[str, Any]:
    """Run the recipe; return the headline figures."""
    # 1. What both methods start from, as in the comparison; a judge with prompts of its own.
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

    # 2. Each method's settings in the order of their trials, the first as they stand.
    spaces = config.search.spaces
    waiting = {
        method: [
            Plan(method, number, settings)
            for number, settings in enumerate(
                [
                    as_they_stand(config, method),
                    *draw(spaces[method], most_trials(config) - 1, config.search.draw_seed),
                ]
            )
        ]
        for method in METHODS
        if method in spaces
    }

    # 3. Trials, until each method's budget is used up.
    done: dict[str, list[dict[str, Any]]] = {method: [] for method in waiting}
    while any(waiting.values()):
        wave = [plan for plans in waiting.values() for plan in plans[: at_once(config)]]
        for plan, trial in zip(wave, try_out(run, config, shared, judge, wave), strict=True):
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


def try_out(
    run: Run, config: SweepConfig, shared: SharedStages, judge: Any, wave: Sequence[Plan]
) -> list[dict[str, Any]]:
    """Train and judge trials with every tuning seed; return them as `trial_of` takes them.

    A trial whose training fails (it diverged, say) has failed, and does not take the sweep with it.
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
    judged = make_all(
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
        mine = [plan.name(seed) for seed in config.search.seeds]
        failed = [
            failures[n] for name in mine for n in (name, f"evaluation/{name}") if n in failures
        ]
        trials.append(
            {
                "number": plan.number,
                "settings": plan.settings,
                "made": [
                    (policies[name], judged[f"evaluation/{name}"])
                    for name in mine
                    if f"evaluation/{name}" in judged
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
    """Return the training of one trial with one seed. It is judged when it is done, not before."""
    given: dict[str, Any] = {
        "config": changed(tuned(config, method, settings), {"evaluations": 0}),
        "policy": shared.sft_policy,
        "hook": judge,
        "seed": seed,
    }
    if method == "dpo":
        return Job(train_dpo, given | {"preferences": shared.preferences})
    return Job(train_ppo, given | {"prompts": shared.rl_prompts, "scorer": shared.scorer})


def tuned(config: SweepConfig, method: str, settings: Settings) -> Any:
    """Return a method's config with a trial's settings."""
    return changed(getattr(config, method), nested(settings))


def as_they_stand(config: SweepConfig, method: str) -> Settings:
    """Return what the settings that are searched over are without a sweep."""
    values = getattr(config, method).model_dump(mode="json")
    return {key: value_at(values, key) for key in sorted(config.search.spaces[method])}


def most_trials(config: SweepConfig) -> int:
    """Return how many trials a method may have."""
    budget = config.search.budget
    return max(1, int(budget.limit)) if budget.by == "trials" else budget.most_trials


def at_once(config: SweepConfig) -> int:
    """Return how many trials of a method are started before what they cost is looked at."""
    by_count = config.search.budget.by == "trials"
    return most_trials(config) if by_count else max(1, config.pool.workers // 2)


def within_budget(
    config: SweepConfig, shared: SharedStages, trials: Sequence[Mapping[str, Any]]
) -> int:
    """Return how many trials, in order, ended within the budget. It was the first if none did."""
    budget = config.search.budget
    costs = [trial_of(judge=shared.judge, **trial).cost(budget.by) for trial in trials]
    counted = within(costs, budget.limit)
    if costs and counted == 0:
        raise ConfigError(
            f"The first trial took {costs[0]:,.0f} {budget.by}, more than the whole budget of "
            f"{budget.limit:,.0f}. Raise search.budget.limit."
        )
    return counted


def winner(
    config: SweepConfig, shared: SharedStages, method: str, trials: Sequence[Mapping[str, Any]]
) -> Trial:
    """Return the trial that a method goes into the comparison with."""
    found = choose(
        [trial_of(judge=shared.judge, **trial) for trial in trials], config.search.kl_limit
    )
    if found is None:
        raise ConfigError(
            f"Every trial of {method} failed; the first said: {trials[0]['failure']} Change "
            f"search.spaces.{method}, or its settings as they stand."
        )
    return found.trial
