"""Dawid-Skene, GLAD and MACE by crowd-kit, which estimates people and outcomes together.

Three things of crowd-kit 1.4 need care.

- Its Dawid-Skene and its GLAD stop as soon as a figure does not grow that need not grow in every
  round (a bound from clipped probabilities, an expected likelihood without its entropy). On the
  data of Dawid and Skene (1979) a probability is then off by 0.02; GLAD stops after two rounds.
  So both go through all their rounds, and Dawid-Skene comes to what its equations come to.
- Its MACE keeps two tables in step only where people and choices first appear in sorted order
  (`MACE._e_step` sorts one of them). So all votes go in sorted, and coded by first appearance,
  which also makes every result independent of the order of the votes.
- Seeded by a number, its MACE makes the same start at every restart. So it gets a generator.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from annotation.aggregation.votes import CountedVote
from plumbline.data.labels import Choice
from plumbline.errors import DataError

CrowdMethod = Literal["dawid_skene", "glad", "mace"]
CROWD_METHODS: tuple[CrowdMethod, ...] = get_args(CrowdMethod)
ROUNDS = 100
"""Of Dawid-Skene's EM."""
GLAD_ROUNDS = 20
"""Of GLAD's, each of which climbs for up to 25 steps."""
RESTARTS = 4
"""Of MACE, whose likelihood has several maxima; the best is kept."""
_GOLD = "gold item "


def posteriors(
    votes: Sequence[CountedVote],
    method: CrowdMethod,
    *,
    gold: Sequence[CountedVote] = (),
    answers: Mapping[str, Choice] | None = None,
    seed: int = 0,
) -> dict[str, dict[Choice, float]]:
    """Return the probability of every choice for every pair, by a model of the people.

    Dawid-Skene also learns from answers to gold items, of which ``answers`` are the known ones.
    Raises `DataError` where the model comes to no probability.
    """
    known = answers or {}
    coded = sorted(votes, key=lambda vote: (vote.pair_id, vote.person, vote.choice))
    choices = list(dict.fromkeys(vote.choice for vote in coded))
    if method == "dawid_skene":
        # A gold item whose answer or whose vote nobody gave on a real pair teaches nothing here.
        usable = sorted(
            (vote for vote in gold if {vote.choice, known.get(vote.pair_id)} <= set(choices)),
            key=lambda vote: (vote.pair_id, vote.person, vote.choice),
        )
        coded += [vote._replace(pair_id=_GOLD + vote.pair_id) for vote in usable]
    names = list(dict.fromkeys(vote.choice for vote in coded))
    people = _codes("p", (vote.person for vote in coded))
    tasks = _codes("t", (vote.pair_id for vote in coded))
    labels = _codes("c", names)
    rows = [
        {"task": tasks[v.pair_id], "worker": people[v.person], "label": labels[v.choice]}
        for v in coded
    ]
    truth = {
        code: labels[known[name.removeprefix(_GOLD)]]
        for name, code in tasks.items()
        if name.startswith(_GOLD)
    }
    table = _fit(rows, method, truth, seed)
    found: dict[str, dict[Choice, float]] = {}
    for pair_id in dict.fromkeys(vote.pair_id for vote in votes):
        row = table.loc[tasks[pair_id]]
        found[pair_id] = {choice: float(row[labels[choice]]) for choice in choices}
        if not math.isclose(sum(found[pair_id].values()), 1.0, abs_tol=1e-6):
            raise DataError(
                f"{method} came to no probability for {pair_id} (it gives {found[pair_id]}). "
                "Use another method, such as weighted or majority."
            )
    return found


def _fit(rows: list[dict[str, str]], method: CrowdMethod, truth: dict[str, str], seed: int) -> Any:
    """Return crowd-kit's table of probabilities, pairs by choices."""
    import numpy as np
    import pandas as pd
    from crowdkit.aggregation import GLAD, MACE, DawidSkene

    data = pd.DataFrame(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its calls that pandas will one day refuse
        if method == "dawid_skene":
            known = pd.Series(truth, dtype=object) if truth else None
            model = DawidSkene(n_iter=ROUNDS, tol=-math.inf)
            return model.fit_predict_proba(data, true_labels=known)
        if method == "glad":
            glad = GLAD(n_iter=GLAD_ROUNDS, tol=-math.inf, silent=True)
            return glad.fit_predict_proba(data)
        # Despite its annotation it hands this on to scipy, which takes a generator too.
        generator: Any = np.random.RandomState(seed % 2**32)
        mace = MACE(n_restarts=RESTARTS, random_state=generator, verbose=0)
        return mace.fit_predict_proba(data)


def _codes(letter: str, names: Any) -> dict[str, str]:
    """Return a code for each different name, sorted as the names first appear."""
    return {name: f"{letter}{number:08d}" for number, name in enumerate(dict.fromkeys(names))}
