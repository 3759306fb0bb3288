"""The agreement page: one HTML file that opens offline, ``agreement.md`` and ``agreement.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from annotation.agreement.disputes import Dispute, most_disputed
from annotation.agreement.intervals import Bootstrap, Estimate
from annotation.agreement.label_agreement import (
    ORDER,
    LabelAgreement,
    PersonSummary,
    measure_labels,
    names_of,
)
from annotation.agreement.measure import NO_MAJORITY, Agreement
from annotation.agreement.report import (
    agreement_notes,
    coefficient,
    headline,
    lowest_pairs,
    reading_notes,
    share,
)
from annotation.gold_answers import read_gold
from plumbline import __version__, pages
from plumbline.data.labels import CHOICES, Label, read_labels
from plumbline.data.records import read_dataset
from plumbline.pages import number
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage

CODE_BESIDE = "../templates"
PAGE, MARKDOWN, FIGURES = "agreement.html", "agreement.md", "agreement.json"
_DISPUTES = 12
#: Krippendorff, "Content Analysis", 2004: data with a larger alpha than the first are reliable;
#: with a larger one than the second, they allow tentative conclusions.
RELIABLE, TENTATIVE = 0.8, 0.667
#: With more people, the matrix of kappas is too large to read, and the lowest pairs are listed.
_MATRIX_PEOPLE = 30
_PAIRS_LISTED = 300


class Cell(NamedTuple):
    """A cell of the matrix of kappas."""

    text: str
    strength: float
    """How deep its colour is, from 0 to 1."""
    below_chance: bool
    title: str


class AxisPosition(NamedTuple):
    """The position of an interval on its axis, in per cent of the axis."""

    value: float
    low: float
    width: float


@stage("agreement")
def report_agreement(
    stage: Stage, *, labels: Artifact, pairs: Artifact, seed: int, resamples: int = 1000
) -> Mapping[str, float | None]:
    """Write the agreement of the people who gave these labels, and the pairs they disagree on."""
    records = read_labels(labels.path)
    measured = measure_labels(
        records, read_gold(labels.path), ORDER, Bootstrap(resamples=resamples, seed=seed)
    )
    rows = read_dataset(pairs.path, "train")
    disputes = most_disputed(records, rows, names_of(records), _DISPUTES)
    write_json(
        stage.folder / FIGURES,
        {"labels": labels.id, "pairs": pairs.id}
        | measured.as_dict()
        | {"most_disputed": [dispute.pair_id for dispute in disputes]},
    )
    page, markdown = render(measured, disputes, flags_of(records))
    (stage.folder / PAGE).write_text(page, encoding="utf-8")
    (stage.folder / MARKDOWN).write_text(markdown, encoding="utf-8")
    choice = measured.choice
    metrics = {
        "agreement": choice.agreement.value,
        "alpha": choice.alpha.value,
        "fleiss_kappa": choice.fleiss_kappa.value,
        "alpha_ordinal": choice.alpha_ordinal.value if choice.alpha_ordinal is not None else None,
        "gold_accuracy": measured.everybody.gold_accuracy.value,
        "self_consistency": measured.everybody.self_consistency.value,
        "shown_first": measured.everybody.shown_first.value,
        "votes": float(choice.votes),
        "people": float(len(choice.people)),
    }
    write_json(stage.folder / "summary.json", metrics)
    return metrics


def render(
    measured: LabelAgreement,
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
        "measured": measured,
        "choice": measured.choice,
        "verdict": verdict(measured),
        "measures": _placed_measures(measured.choice),
        "axis_from": _axis_from(measured.choice),
        "kappas": kappa_matrix(measured.choice)
        if len(measured.choice.people) <= _MATRIX_PEOPLE
        else {},
        "pairs": lowest_pairs(measured.choice, _PAIRS_LISTED),
        "categories": [kind for kind in CHOICES if kind in measured.choice.choices],
        "distributions": _distributions(measured.choice),
        "people": [*measured.people, measured.everybody],
        "notes": _notes(measured),
        "no_majority": measured.choice.majorities[NO_MAJORITY],
        "flags": flags,
        "disputes": disputes,
    }
    return (
        environment.get_template("agreement.html.jinja").render(content),
        environment.get_template("agreement.md.jinja").render(content),
    )


def verdict(measured: LabelAgreement) -> list[str]:
    """Return what the data show, in sentences that claim no more than that."""
    choice, everybody = measured.choice, measured.everybody
    sentences = [
        f"{choice.votes:,} votes by {len(choice.people)} people on {choice.items:,} pairs; "
        f"{choice.items_with_two_votes:,} pairs have two votes or more."
    ]
    if choice.agreement.value is not None:
        sentences.append(
            f"Two votes on the same pair are equal in {share(choice.agreement)} of cases. "
            + _about_alpha(choice.alpha)
        )
    else:
        sentences.append(f"Agreement is unknown: {choice.agreement.reason}.")
    checks = [
        f"{words} {share(estimate)}"
        for words, estimate in (
            ("gold items answered right:", everybody.gold_accuracy),
            ("repeats answered as the first time:", everybody.self_consistency),
        )
        if estimate.value is not None
    ]
    if checks:
        text = "; ".join(checks)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    lean = leaning(everybody)
    if lean:
        sentences.append(
            f"People prefer the response shown {lean}: {share(everybody.shown_first)} of the "
            "choices went to the one shown first."
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
        sentences.append(f"{names} {verb} with the others less than people do on average.")
    return sentences


def _about_alpha(alpha: Estimate) -> str:
    if alpha.value is None:
        return f"Krippendorff's alpha is undefined: {alpha.reason}."
    value = f"Krippendorff's alpha, which is zero for agreement by chance, is {coefficient(alpha)}"
    if alpha.low is not None and alpha.low >= RELIABLE:
        return f"{value}: above {RELIABLE:g}, which Krippendorff requires of reliable data."
    if alpha.high is not None and alpha.high < TENTATIVE:
        return (
            f"{value}: below {TENTATIVE:g}, which Krippendorff requires even for tentative "
            "conclusions."
        )
    if alpha.high is not None and alpha.high < RELIABLE:
        return f"{value}: below {RELIABLE:g}, which Krippendorff requires of reliable data."
    return f"{value}; Krippendorff requires {RELIABLE:g} of reliable data."


def leaning(person: PersonSummary) -> str:
    """Return ``first`` or ``second`` where choices clearly prefer one position, else nothing."""
    bias = person.shown_first
    if bias.low is None or bias.high is None or bias.low <= 0.5 <= bias.high:
        return ""
    return "first" if bias.low > 0.5 else "second"


def kappa_matrix(agreement: Agreement) -> dict[str, dict[str, Cell]]:
    """Return Cohen's kappa of the pairs of people who share an item, by both names."""
    matrix: dict[str, dict[str, Cell]] = {person.name: {} for person in agreement.people}
    for pair in agreement.pairs:
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
    """Return a choice in words: A, B, tie, both bad."""
    side, _, rest = choice.partition(" ")
    return " ".join([side.upper() if side in ("a", "b") else side.replace("_", " "), rest]).strip()


def flags_of(labels: Sequence[Label]) -> dict[str, int]:
    """Return how many labels have each flag."""
    return dict(sorted(Counter(flag for label in labels for flag in label.flags).items()))


def _two_lines(text: str) -> Markup:
    """Return a number with its interval below it, to save width."""
    value, _, interval = text.partition(" (")
    return Markup('{}<br><span class="soft">{}</span>').format(value, interval.removesuffix(")"))


def _notes(measured: LabelAgreement) -> list[str]:
    notes = reading_notes(None, measured) + agreement_notes(measured.choice)
    for name, aspect in measured.aspects.items():
        if aspect.alpha.value is None:
            notes.append(f"Agreement on {name} is undefined: {aspect.alpha.reason}.")
    return notes


def _placed_measures(agreement: Agreement) -> list[tuple[str, str, int, AxisPosition | None]]:
    """Return the headline numbers, each with its position on a common axis that ends at 1."""
    estimates = [
        agreement.agreement,
        agreement.fleiss_kappa,
        agreement.alpha,
        agreement.alpha_ordinal,
    ]
    defined = [estimate for estimate in estimates if estimate is not None]
    start = _axis_from(agreement)
    return [
        (name, text, n, _place(estimate, start))
        for (name, text, n), estimate in zip(headline(agreement), defined, strict=True)
    ]


def _headline_estimates(agreement: Agreement) -> list[Estimate | None]:
    return [
        agreement.agreement,
        agreement.fleiss_kappa,
        agreement.alpha,
        agreement.alpha_ordinal,
    ]


def _axis_from(agreement: Agreement) -> float:
    """Return the start of the axis: 0, or -1 where something is below chance."""
    estimates = _headline_estimates(agreement)
    ends = [end for e in estimates if e is not None for end in (e.value, e.low) if end is not None]
    return -1.0 if min(ends, default=0.0) < 0 else 0.0


def _place(estimate: Estimate, start: float) -> AxisPosition | None:
    if estimate.value is None:
        return None

    def at(value: float) -> float:
        return round(100 * (min(max(value, start), 1.0) - start) / (1 - start), 2)

    low = at(estimate.low if estimate.low is not None else estimate.value)
    high = at(estimate.high if estimate.high is not None else estimate.value)
    return AxisPosition(at(estimate.value), low, round(high - low, 2))


def _distributions(agreement: Agreement) -> list[tuple[str, int, dict[str, float]]]:
    """Return votes and share of each choice, for everybody and by person."""
    rows = [("everybody", agreement.votes, agreement.choices)]
    rows += [(person.name, person.votes, person.choices) for person in agreement.people]
    return [
        (name, votes, {kind: n / votes for kind, n in choices.items()})
        for name, votes, choices in rows
        if votes
    ]
