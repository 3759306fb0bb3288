"""Dawid-Skene, GLAD and MACE by crowd-kit, which estimates people and outcomes together.

Three properties of crowd-kit 1.4 need care.

- Its Dawid-Skene and its GLAD stop as soon as a figure does not grow that need not grow in every
  round (a bound from clipped probabilities, an expected likelihood without its entropy). On the
  data of Dawid and Skene (1979) a probability is then off by 0.02, and GLAD stops after two
  rounds. So both run all their rounds here, and Dawid-Skene reaches what its equations say.
- Its MACE keeps two tables in step only where people and choices first appear in sorted order
  (`MACE._e_step` sorts one of them). So all votes are sorted, and coded by first appearance. This
  also makes every result independent of the order of the votes.
- With a number as its seed, its MACE starts every restart from the same point. So it gets a
  generator.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from annotation.aggregation.counted_vote import CountedVote
from plumbline.data.labels import Choice
from plumbline.errors import DataError

ROUNDS = 100
"""Rounds of Dawid-Skene's EM."""
GLAD_ROUNDS = 20
"""Rounds of GLAD's EM, each of which climbs for up to 25 steps."""
RESTARTS = 4
"""Restarts of MACE, whose likelihood has several maxima; the best is kept."""
_GOLD = "gold item "


def dawid_skene(
    votes: Sequence[CountedVote],
    gold: Sequence[CountedVote] = (),
    answers: Mapping[str, Choice] | None = None,
) -> dict[str, dict[Choice, float]]:
    """Return posteriors with a confusion matrix per person (Dawid and Skene, 1979).

    The answers to gold items teach the model about people; ``answers`` are the known ones.
    """
    known_answers = answers or {}
    choices = {vote.choice for vote in votes}
    # A gold item with an answer, or a vote, that no real pair has teaches nothing about these.
    usable = [
        vote._replace(pair_id=_GOLD + vote.pair_id)
        for vote in sorted(gold, key=_order)
        if {vote.choice, known_answers.get(vote.pair_id)} <= choices
    ]

    def fit(coded: _Coded) -> Any:
        import pandas as pd
        from crowdkit.aggregation import DawidSkene

        truth = {
            code: coded.choices[known_answers[name.removeprefix(_GOLD)]]
            for name, code in coded.tasks.items()
            if name.startswith(_GOLD)
        }
        model = DawidSkene(n_iter=ROUNDS, tol=-math.inf)
        series = pd.Series(truth, dtype=object) if truth else None
        return model.fit_predict_proba(coded.table(), true_labels=series)

    return _posteriors("dawid_skene", votes, fit, usable)


def glad(votes: Sequence[CountedVote]) -> dict[str, dict[Choice, float]]:
    """Return posteriors with an ability per person and a difficulty per pair.

    Whitehill et al., 2009.
    """

    def fit(coded: _Coded) -> Any:
        from crowdkit.aggregation import GLAD

        return GLAD(n_iter=GLAD_ROUNDS, tol=-math.inf, silent=True).fit_predict_proba(coded.table())

    return _posteriors("glad", votes, fit)


def mace(votes: Sequence[CountedVote], seed: int = 0) -> dict[str, dict[Choice, float]]:
    """Return posteriors with a share of careless answers per person (Hovy et al., 2013)."""

    def fit(coded: _Coded) -> Any:
        import numpy as np
        from crowdkit.aggregation import MACE

        # Its annotation asks for a number, but it hands this on to scipy, which takes a generator.
        generator: Any = np.random.RandomState(seed % 2**32)
        model = MACE(n_restarts=RESTARTS, random_state=generator, verbose=0)
        return model.fit_predict_proba(coded.table())

    return _posteriors("mace", votes, fit)


class _Coded(NamedTuple):
    """Votes with a short code for every pair, person and choice, as crowd-kit reads them."""

    votes: Sequence[CountedVote]
    tasks: dict[str, str]
    people: dict[str, str]
    choices: dict[Choice, str]

    def table(self) -> Any:
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "task": self.tasks[vote.pair_id],
                    "worker": self.people[vote.person],
                    "label": self.choices[vote.choice],
                }
                for vote in self.votes
            ]
        )


def _posteriors(
    name: str,
    votes: Sequence[CountedVote],
    fit: Callable[[_Coded], Any],
    gold: Sequence[CountedVote] = (),
) -> dict[str, dict[Choice, float]]:
    """Return the probability of every choice for every pair.

    Raises `DataError` where the model gives no probabilities.
    """
    ordered = [*sorted(votes, key=_order), *gold]
    choices = list(dict.fromkeys(vote.choice for vote in ordered))
    coded = _Coded(
        ordered,
        _codes("t", (vote.pair_id for vote in ordered)),
        _codes("p", (vote.person for vote in ordered)),
        {choice: f"c{number:08d}" for number, choice in enumerate(choices)},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns of calls of crowd-kit's that it will refuse
        table = fit(coded)
    probabilities: dict[str, dict[Choice, float]] = {}
    for pair_id in dict.fromkeys(vote.pair_id for vote in votes):
        row = table.loc[coded.tasks[pair_id]]
        probabilities[pair_id] = {choice: float(row[coded.choices[choice]]) for choice in choices}
        if not math.isclose(sum(probabilities[pair_id].values()), 1.0, abs_tol=1e-6):
            raise DataError(
                f"The method {name} gives no probabilities for the pair {pair_id}: its values are "
                f"{probabilities[pair_id]}. Use another method, such as weighted or majority."
            )
    return probabilities


def _order(vote: CountedVote) -> tuple[str, str, Choice]:
    return vote.pair_id, vote.person, vote.choice


def _codes(letter: str, names: Iterable[str]) -> dict[str, str]:
    """Return a code for each name, numbered by first appearance."""
    return {name: f"{letter}{number:08d}" for number, name in enumerate(dict.fromkeys(names))}
