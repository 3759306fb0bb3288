"""The agreement page: one HTML file that opens offline, ``agreement.md`` and ``agreement.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from annotation.aggregation.votes import read_gold
from annotation.agreement.disputes import Dispute, most_disputed
from annotation.agreement.intervals import Bootstrap, Estimate
from annotation.agreement.labels import ORDER, LabelAgreement, Labeler, measure_labels, names_of
from annotation.agreement.measure import NO_MAJORITY, Agreement
from annotation.agreement.report import agreement_notes, coefficient, measures, share, unsaid
from plumbline import __version__, pages
from plumbline.data.labels import CHOICES, Label, read_labels
from plumbline.data.records import read_dataset
from plumbline.pages import number
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage

CODE_BESIDE = "../templates"
PAGE, MARKDOWN, FIGURES = "agreement.html", "agreement.md", "agreement.json"
_DISPUTES = 12
#: Krippendorff, "Content Analysis", 2004: rely on data from the first on; draw tentative
#: conclusions from the second on.
RELIABLE, TENTATIVE = 0.8, 0.667


class Cell(NamedTuple):
    """A cell of the matrix of kappas."""

    text: str
    strength: float
    """How strongly it is coloured, from 0 to 1."""
    below_chance: bool
    title: str


class Place(NamedTuple):
    """Where an interval lies on its axis, in per cent of the axis."""

    value: float
    low: float
    width: float


@stage("agreement")
def report_agreement(
    stage: Stage, *, labels: Artifact, pairs: Artifact, seed: int, resamples: int = 1000
) -> Mapping[str, float | None]:
    """Write how far the people agree who gave these labels, and where they do not."""
    given = read_labels(labels.path)
    found = measure_labels(
        given, read_gold(labels.path), ORDER, Bootstrap(resamples=resamples, seed=seed)
    )
    disputes = most_disputed(given, read_dataset(pairs.path, "train"), names_of(given), _DISPUTES)
    write_json(
        stage.folder / FIGURES,
        {"labels": labels.id, "pairs": pairs.id}
        | found.as_dict()
        | {"most_disputed": [dispute.pair_id for dispute in disputes]},
    )
    page, markdown = render(found, disputes, flags_of(given))
    (stage.folder / PAGE).write_text(page, encoding="utf-8")
    (stage.folder / MARKDOWN).write_text(markdown, encoding="utf-8")
    choice = found.choice
    figures = {
        "agreement": choice.agreement.value,
        "alpha": choice.alpha.value,
        "fleiss_kappa": choice.fleiss_kappa.value,
        "alpha_ordinal": choice.alpha_ordinal.value if choice.alpha_ordinal is not None else None,
        "gold_accuracy": found.everybody.gold_accuracy.value,
        "self_consistency": found.everybody.self_consistency.value,
        "shown_first": found.everybody.shown_first.value,
        "votes": float(choice.votes),
        "people": float(len(choice.people)),
    }
    write_json(stage.folder / "summary.json", figures)
    return figures


def render(
    found: LabelAgreement,
    disputes: Sequence[Dispute],
    flags: Mapping[str, int],
    title: str = "Agreement",
) -> tuple[str, str]:
    """Return the page and the Markdown."""
    environment = pages.templates("annotation")
    environment.filters |= {
        "share": share,
        "coefficient": coefficient,
        "choice": shown_choice,
        "leaning": leaning,
        "two_lines": _two_lines,
    }
    content: dict[str, Any] = {
        "title": title,
        "version": __version__,
        "found": found,
        "choice": found.choice,
        "verdict": verdict(found),
        "measures": _placed_measures(found.choice),
        "axis_from": _axis_from(found.choice),
        "kappas": kappa_matrix(found.choice),
        "categories": [kind for kind in CHOICES if kind in found.choice.choices],
        "distributions": _distributions(found.choice),
        "people": [*found.people, found.everybody],
        "notes": _notes(found),
        "no_majority": found.choice.majorities[NO_MAJORITY],
        "flags": flags,
        "disputes": disputes,
    }
    return (
        environment.get_template("agreement.html.jinja").render(content),
        environment.get_template("agreement.md.jinja").render(content),
    )


def verdict(found: LabelAgreement) -> list[str]:
    """Return what the figures say, in sentences, and no more than they say."""
    choice, everybody = found.choice, found.everybody
    sentences = [
        f"{choice.votes:,} votes by {len(choice.people)} people on {choice.items:,} pairs; "
        f"{choice.items_with_two_votes:,} pairs have two votes or more."
    ]
    if choice.agreement.value is not None:
        sentences.append(
            f"Two votes on the same pair agree in {share(choice.agreement)} of cases. "
            + _about_alpha(choice.alpha)
        )
    else:
        sentences.append(f"Agreement is unknown: {choice.agreement.reason}.")
    habits = [
        f"{words} {share(estimate)}"
        for words, estimate in (
            ("gold items answered right:", everybody.gold_accuracy),
            ("repeats answered as before:", everybody.self_consistency),
        )
        if estimate.value is not None
    ]
    if habits:
        text = "; ".join(habits)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    lean = leaning(everybody)
    if lean:
        sentences.append(
            f"Choices lean to the response shown {lean}: "
            f"{share(everybody.shown_first)} went to the first."
        )
    apart = [
        person.name
        for person in choice.people
        if choice.agreement.value is not None
        and person.with_others.high is not None
        and person.with_others.high < choice.agreement.value
    ]
    if apart:
        names = ", ".join(apart)
        verb = "agrees" if len(apart) == 1 else "agree"
        sentences.append(f"{names} {verb} with the others less than people do in all.")
    return sentences


def _about_alpha(alpha: Estimate) -> str:
    if alpha.value is None:
        return f"Krippendorff's alpha is undefined: {alpha.reason}."
    said = (
        "Krippendorff's alpha, which discounts what chance alone would give, is "
        f"{coefficient(alpha)}"
    )
    bar = f"{RELIABLE:g} that Krippendorff asks of data to rely on"
    if alpha.low is not None and alpha.low >= RELIABLE:
        return f"{said}: above the {bar}."
    if alpha.high is not None and alpha.high < TENTATIVE:
        return f"{said}: below the {TENTATIVE:g} that Krippendorff asks even of tentative use."
    if alpha.high is not None and alpha.high < RELIABLE:
        return f"{said}: below the {bar}."
    return f"{said}; Krippendorff asks {RELIABLE:g} of data to rely on."


def leaning(person: Labeler) -> str:
    """Return ``first`` or ``second`` where choices surely lean to one position, else nothing."""
    bias = person.shown_first
    if bias.low is None or bias.high is None or bias.low <= 0.5 <= bias.high:
        return ""
    return "first" if bias.low > 0.5 else "second"


def kappa_matrix(found: Agreement) -> dict[str, dict[str, Cell]]:
    """Return Cohen's kappa of every two people, by name and name; nothing on the diagonal."""
    matrix: dict[str, dict[str, Cell]] = {person.name: {} for person in found.people}
    for pair in found.pairs:
        first, second = pair.people
        value = pair.kappa.value
        about = f"{coefficient(pair.kappa)} on {pair.kappa.n} pairs; agree in "
        cell = Cell(
            text=number(value),
            strength=0.0 if value is None else round(min(abs(value), 1.0), 3),
            below_chance=value is not None and value < 0,
            title=f"{first} – {second}: "
            + (pair.kappa.reason if value is None else about + share(pair.agreement)),
        )
        matrix[first][second] = matrix[second][first] = cell
    return matrix


def shown_choice(choice: str) -> str:
    """Return a choice as people read it: A, B, tie, both bad."""
    side, _, rest = choice.partition(" ")
    return " ".join([side.upper() if side in ("a", "b") else side.replace("_", " "), rest]).strip()


def flags_of(labels: Sequence[Label]) -> dict[str, int]:
    """Return how many labels bear each flag."""
    return dict(sorted(Counter(flag for label in labels for flag in label.flags).items()))


def _two_lines(text: str) -> Markup:
    """Return a figure with its interval beneath it, for columns that are many."""
    value, _, interval = text.partition(" (")
    return Markup('{}<br><span class="soft">{}</span>').format(value, interval.removesuffix(")"))


def _notes(found: LabelAgreement) -> list[str]:
    notes = unsaid(None, found) + agreement_notes(found.choice)
    for name, aspect in found.aspects.items():
        if aspect.alpha.value is None:
            notes.append(f"Agreement on {name} is undefined: {aspect.alpha.reason}.")
    return notes


def _placed_measures(found: Agreement) -> list[tuple[str, str, int, Place | None]]:
    """Return the headline figures, each with its place on a common axis that ends at 1."""
    estimates = [found.agreement, found.fleiss_kappa, found.alpha, found.alpha_ordinal]
    given = [estimate for estimate in estimates if estimate is not None]
    start = _axis_from(found)
    return [
        (name, text, n, _place(estimate, start))
        for (name, text, n), estimate in zip(measures(found), given, strict=True)
    ]


def _axis_from(found: Agreement) -> float:
    """Return where the axis starts: at 0, or at -1 where something lies below chance."""
    given = [found.agreement, found.fleiss_kappa, found.alpha, found.alpha_ordinal]
    ends = [end for e in given if e is not None for end in (e.value, e.low) if end is not None]
    return -1.0 if min(ends, default=0.0) < 0 else 0.0


def _place(estimate: Estimate, start: float) -> Place | None:
    if estimate.value is None:
        return None

    def at(value: float) -> float:
        return round(100 * (min(max(value, start), 1.0) - start) / (1 - start), 2)

    low = at(estimate.low if estimate.low is not None else estimate.value)
    high = at(estimate.high if estimate.high is not None else estimate.value)
    return Place(at(estimate.value), low, round(high - low, 2))


def _distributions(found: Agreement) -> list[tuple[str, int, dict[str, float]]]:
    """Return votes and share of each choice, for everybody and by person."""
    rows = [("everybody", found.votes, found.choices)]
    rows += [(person.name, person.votes, person.choices) for person in found.people]
    return [
        (name, votes, {kind: n / votes for kind, n in choices.items()})
        for name, votes, choices in rows
        if votes
    ]
