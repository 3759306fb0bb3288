"""On which terms policies may be compared: what is refused, and what is flagged.

A comparison means something only where all policies answered the same prompts, sampled the same
way, are measured from the same reference and are judged by the same judges. What differs is named;
nothing is left out silently.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from evaluation.comparison.training_runs import Look, Trained, is_finite
from plumbline.errors import DataError

Level = Literal["warning", "refused"]

#: What may be allowed to differ, with what follows from it.
_CONSEQUENCES = {
    "reference": "so their KL is not to the same policy and they did not start alike",
    "sampling": "so they did not answer in the same way",
    "tokenizer": "so their log-probabilities are of different tokens and KL does not compare",
}


@dataclass(frozen=True)
class Flag:
    """Something that a reader must know: a warning, or a policy that was left out."""

    level: Level
    text: str


@dataclass
class Checked:
    """Trainings that may be compared, and what must be said about them."""

    trained: list[Trained]
    prompts: list[str]
    """Ids of the prompts that all have answered, in order."""
    flags: list[Flag] = field(default_factory=list)
    kl_compares: bool = True


def check(
    trained: Sequence[Trained],
    judge: str,
    baseline: Look | None = None,
    *,
    common_prompts: bool = False,
    allowed: Collection[str] = (),
) -> Checked:
    """Return what may be compared by ``judge``; raise `DataError` where a comparison is none.

    ``common_prompts`` restricts everything to the prompts that all have answered; ``allowed``
    names terms that may differ (``reference``, ``sampling``).
    """
    flags: list[Flag] = []
    kept = []
    for one in trained:
        if is_finite(one.final, judge):
            kept.append(one)
        else:
            lost = sum(row.get(judge) is None for row in one.final.rows)
            reason = "; ".join(one.troubles) or f"{lost} of its answers have no score"
            flags.append(Flag("refused", f"{one.name} is left out: no finite {judge} ({reason})."))
    if not kept:
        raise DataError(
            f"There is nothing to compare: no policy has a finite {judge} for every answer."
        )
    flags += _same_terms(kept, allowed)
    done = [one for one in kept if not one.unfinished]
    prompts = _prompts(done or kept, baseline, common_prompts or not done, flags)
    kl_compares = len({t.terms["tokenizer"] for t in kept if "tokenizer" in t.terms}) <= 1
    flags += [Flag("warning", f"{t.name}: {trouble}.") for t in kept for trouble in t.troubles]
    flags += _uneven(kept)
    wanted = set(prompts)
    restricted = [
        replace(t, looks=[look.on(_shared(look, prompts, wanted)) for look in t.looks])
        for t in kept
    ]
    return Checked(restricted, prompts, flags, kl_compares)


def _shared(look: Look, prompts: Sequence[str], wanted: set[str]) -> list[str]:
    """Return the wanted prompts that a look has answers to; looks in training may have fewer."""
    has = {row["prompt_id"] for row in look.rows} & wanted
    return [identity for identity in prompts if identity in has]


def _same_terms(trained: Sequence[Trained], allowed: Collection[str]) -> list[Flag]:
    flags = []
    by_term: dict[str, dict[str, list[Trained]]] = defaultdict(lambda: defaultdict(list))
    for one in trained:
        for name, value in one.terms.items():
            by_term[name][value].append(one)
    for name, values in by_term.items():
        if len(values) < 2 or name == "prompts":
            continue
        sides = " and ".join(_named(group) for group in values.values())
        if name.startswith("judge "):
            raise DataError(
                f"{sides} were scored by different judges ({name.removeprefix('judge ')}), so "
                "their scores do not compare. Evaluate them again with one judge (plumbline "
                "evaluate), or compare them within their own runs."
            )
        text = f"{sides} differ in {name}, {_CONSEQUENCES.get(name, '')}".rstrip(", ")
        if name == "tokenizer" or name in allowed:
            flags.append(Flag("warning", f"{text}."))
        else:
            raise DataError(f"{text}. If that is meant, give --allow {name}.")
    return flags


def _prompts(
    trained: Sequence[Trained], baseline: Look | None, common: bool, flags: list[Flag]
) -> list[str]:
    answered = {t.name: [row["prompt_id"] for row in t.final.rows] for t in trained}
    if baseline is not None:
        answered["the baseline"] = [row["prompt_id"] for row in baseline.rows]
    for name, identities in answered.items():
        twice = [identity for identity, n in Counter(identities).items() if n > 1]
        if twice:
            raise DataError(
                f"{name} answers {len(twice)} prompts more than once at one checkpoint. Give each "
                "answer a seed of its own, so that it is a policy's one answer."
            )
    sets = {name: set(identities) for name, identities in answered.items()}
    shared = set.intersection(*sets.values())
    everything = set.union(*sets.values())
    if shared != everything:
        counts = ", ".join(f"{name} {len(found)}" for name, found in list(sets.items())[:8])
        what = f"{len(shared)} of {len(everything)} prompts were answered by all ({counts})"
        if not common or len(shared) < 2:
            raise DataError(
                f"The policies answered different prompts: {what}. A paired comparison needs the "
                "same prompts: sample the missing answers"
                + ("." if len(shared) < 2 else ", or give --common-prompts to use the shared ones.")
            )
        flags.append(Flag("warning", f"Different prompt sets: {what}; only these are compared."))
    return [identity for identity in answered[trained[0].name] if identity in shared]


def _uneven(trained: Sequence[Trained]) -> Iterable[Flag]:
    seeds: dict[str, list[Trained]] = defaultdict(list)
    for one in trained:
        seeds[one.method].append(one)
    if (
        not any(one.unfinished for one in trained)
        and len({len(group) for group in seeds.values()}) > 1
    ):
        counts = ", ".join(f"{method} {len(group)}" for method, group in seeds.items())
        yield Flag("warning", f"The methods have different numbers of seeds: {counts}.")
    finished = not all(one.unfinished for one in trained)
    for method, group in seeds.items():
        most = max(len(one.looks) for one in group)
        for one in group:
            if len(one.looks) < most and not one.unfinished:
                yield Flag(
                    "warning",
                    f"{one.name} has {len(one.looks)} checkpoints where another seed of {method} "
                    f"has {most}: some are missing, or it stopped early.",
                )
            if one.unfinished:
                shown = "only its frontier is shown" if finished else "it is shown as it stands"
                yield Flag("warning", f"{one.name} has not finished; {shown}.")


def _named(group: Sequence[Trained]) -> str:
    names = [one.name for one in group]
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
