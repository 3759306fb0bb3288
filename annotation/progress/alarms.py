"""Quality alarms: what in one person's answers a team lead should look at.

An alarm is raised where a 95% interval lies wholly beyond a threshold, and not where the number
alone does: a few answers prove nothing. No alarm changes a label.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from statistics import median
from typing import Literal

from pydantic import Field

from annotation.aggregation.votes import sort_labels
from annotation.agreement import person_statistics
from annotation.agreement.intervals import wilson
from annotation.agreement.person_statistics import time_of
from annotation.progress.pace import BREAK
from plumbline.config import Config
from plumbline.data.labels import Choice, Label

Kind = Literal["too_fast", "one_side", "repeats", "gold", "faster_late", "worse_late"]
_STANDARD_ERRORS = 1.96
"""Half the width of a 95% interval of a difference, in standard errors."""


class AlarmConfig(Config):
    """When status raises an alarm about one person's answers."""

    least_answers: int = Field(20, ge=5)
    """No alarm about speed, sides or drift before a person has given so many answers."""
    least_checks: int = Field(5, ge=1)
    """No alarm about gold items, or repeats, before a person has answered so many of them."""
    words_per_minute: float = Field(700.0, gt=0)
    """Nobody reads both responses faster than this. Fast readers reach 400 words per minute."""
    fast_share: float = Field(0.1, ge=0, lt=1)
    """Alarm where surely more than this share of answers came faster than they could be read."""
    side_share: float = Field(0.6, ge=0.5, lt=1)
    """Alarm where surely more than this share of preferences went to the same side of the page."""
    repeats_same: float = Field(0.7, gt=0, le=1)
    """Alarm where surely less than this share of repeats is answered as the first time."""
    gold_right: float = Field(0.8, gt=0, le=1)
    """Alarm where surely less than this share of gold items is answered right."""
    late_speed: float = Field(0.5, gt=0, lt=1)
    """Alarm where an answer in the second half of a day's work takes less than this share of the
    time that one in the first half takes, at the same length."""
    late_drop: float = Field(0.1, ge=0, lt=1)
    """Alarm where agreement with others is lower by more than this in the second half of a day's
    work, and surely lower."""


@dataclass(frozen=True)
class Alarm:
    """One alarm about one person."""

    kind: Kind
    text: str
    """What was found, without the person's name, as the rest of a sentence that begins with it."""
    advice: str
    """What to do about it."""


def alarms_of(
    labels: Sequence[Label],
    answers: Mapping[str, Choice],
    words: Mapping[str, int],
    config: AlarmConfig,
) -> dict[str, tuple[Alarm, ...]]:
    """Return the alarms by annotator; people without one are left out.

    ``answers`` are those of gold items and ``words`` the lengths of both responses, by pair.
    Adjudications are left aside, because they are made with the votes in view.
    """
    by_person: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.purpose != "adjudication":
            by_person[label.annotator].append(label)
    agreed = _agreements(labels)
    alarms = {}
    for person, own in by_person.items():
        own.sort(key=time_of)
        seconds = _seconds(own)
        each = (
            _too_fast(own, seconds, words, config),
            _one_side(own, config),
            _repeats(own, config),
            _gold(own, answers, config),
            _faster_late(own, seconds, words, config),
            _worse_late(own, agreed, config),
        )
        raised = tuple(alarm for alarm in each if alarm is not None)
        if raised:
            alarms[person] = raised
    return alarms


def word_count(text: str) -> int:
    """Return how many words a text has to a reader.

    Chinese, Japanese and Korean write no spaces between words; there, two characters count as one.
    """
    dense = sum("\u3000" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7af" for char in text)
    spaced = "".join(" " if "\u3000" <= char <= "\ud7af" else char for char in text)
    return len(spaced.split()) + dense // 2


def _too_fast(
    own: Sequence[Label],
    seconds: Mapping[int, float],
    words: Mapping[str, int],
    config: AlarmConfig,
) -> Alarm | None:
    timed = {i: words[own[i].pair_id] for i in seconds if own[i].pair_id in words}
    fast = [i for i, count in timed.items() if seconds[i] < 60 * count / config.words_per_minute]
    share = wilson(len(fast), len(timed), nothing="no answer is timed")
    if len(timed) < config.least_answers or share.low is None or share.low <= config.fast_share:
        return None
    return Alarm(
        "too_fast",
        f"gave {len(fast)} of {len(timed)} answers faster than anyone can read the two responses "
        f"({median(seconds[i] for i in fast):.0f} s for {median(timed[i] for i in fast):.0f} words "
        "is typical of them)",
        "Ask how they work, and do not count on these labels until you know.",
    )


def _one_side(own: Sequence[Label], config: AlarmConfig) -> Alarm | None:
    estimate = person_statistics.position_bias(own)
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    if estimate.n < config.least_answers:
        return None
    beyond = estimate.low > config.side_share, estimate.high < 1 - config.side_share
    if not any(beyond):
        return None
    share = estimate.value if beyond[0] else 1 - estimate.value
    return Alarm(
        "one_side",
        f"prefers {'A' if beyond[0] else 'B'} in {share:.0%} of {estimate.n} preferences; chance "
        "decides which response is A, so that half would be expected",
        "They may be reading only one response.",
    )


def _repeats(own: Sequence[Label], config: AlarmConfig) -> Alarm | None:
    same = person_statistics.self_consistency(own)
    if same.value is None or same.high is None or same.n < config.least_checks:
        return None
    if same.high >= config.repeats_same:
        return None
    return Alarm(
        "repeats",
        f"answered only {round(same.value * same.n)} of {same.n} repeated pairs as the first time",
        "Look at some of these pairs together: the question may be unclear, or they guess.",
    )


def _gold(own: Sequence[Label], answers: Mapping[str, Choice], config: AlarmConfig) -> Alarm | None:
    right = person_statistics.gold_accuracy(own, answers)
    if right.value is None or right.high is None or right.n < config.least_checks:
        return None
    if right.high >= config.gold_right:
        return None
    return Alarm(
        "gold",
        f"answered only {round(right.value * right.n)} of {right.n} gold items right",
        "Go through these items together, and check that their known answers are right.",
    )


def _faster_late(
    own: Sequence[Label],
    seconds: Mapping[int, float],
    words: Mapping[str, int],
    config: AlarmConfig,
) -> Alarm | None:
    halves: tuple[list[float], list[float]] = ([], [])
    for half, positions in zip(halves, _halves_of_days(own), strict=True):
        half += [
            100 * seconds[i] / max(1, words[own[i].pair_id])
            for i in positions
            if i in seconds and own[i].pair_id in words
        ]
    if min(map(len, halves)) < config.least_answers:
        return None
    early, late = median(halves[0]), median(halves[1])
    if late >= config.late_speed * early:
        return None
    return Alarm(
        "faster_late",
        f"takes {late:.0f} s for 100 words in the second half of a day's work, and {early:.0f} s "
        "in the first half",
        "They may be tired. Shorter sessions help.",
    )


def _worse_late(
    own: Sequence[Label], agreed: Mapping[tuple[str, str], float], config: AlarmConfig
) -> Alarm | None:
    early, late = (
        [
            agreed[own[i].annotator, own[i].pair_id]
            for i in positions
            if own[i].purpose == "vote" and (own[i].annotator, own[i].pair_id) in agreed
        ]
        for positions in _halves_of_days(own)
    )
    if min(len(early), len(late)) < config.least_answers:
        return None
    means = sum(early) / len(early), sum(late) / len(late)
    drop = means[0] - means[1]
    error = (
        sum(mean * (1 - mean) / len(half) for mean, half in zip(means, (early, late), strict=True))
        ** 0.5
    )
    if drop <= config.late_drop or drop - _STANDARD_ERRORS * error <= 0:
        return None
    return Alarm(
        "worse_late",
        f"agrees with others in {means[1]:.0%} of cases in the second half of a day's work, and in "
        f"{means[0]:.0%} in the first half",
        "They may be tired. Shorter sessions help.",
    )


def _agreements(labels: Sequence[Label]) -> dict[tuple[str, str], float]:
    """Return the share of others' votes that a vote equals, by annotator and pair."""
    agreed = {}
    for votes in sort_labels(labels).votes.values():
        counts = Counter(vote.choice for vote in votes)
        if len(votes) > 1:
            for vote in votes:
                agreed[vote.annotator, vote.pair_id] = (counts[vote.choice] - 1) / (len(votes) - 1)
    return agreed


def _seconds(own: Sequence[Label]) -> dict[int, float]:
    """Return how long an answer took at most, by its position: since the answer before it.

    The first answer after a break is left out, because nobody knows when its reading began.
    """
    gaps = (time_of(later) - time_of(earlier) for earlier, later in pairwise(own))
    return {i: gap.total_seconds() for i, gap in enumerate(gaps, 1) if timedelta() <= gap <= BREAK}


def _halves_of_days(own: Sequence[Label]) -> tuple[list[int], list[int]]:
    """Return the positions of answers in the first and in the second half of each day's answers.

    A day ends at midnight on this machine's clock.
    """
    days: dict[object, list[int]] = defaultdict(list)
    for i, label in enumerate(own):
        days[time_of(label).astimezone().date()].append(i)
    first = [i for day in days.values() for i in day[: len(day) // 2]]
    second = [i for day in days.values() for i in day[len(day) - len(day) // 2 :]]
    return first, second
