"""Agreement in sentences, tables and JSON: what the command prints about any table of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from annotation.agreement.coefficients import MOST_PAIRS
from annotation.agreement.intervals import Bootstrap, Estimate
from annotation.agreement.label_agreement import ORDER, LabelAgreement, measure_labels
from annotation.agreement.measure import (
    NO_MAJORITY,
    Agreement,
    PairOfPeople,
    check_order,
    measure_agreement,
)
from annotation.gold_answers import read_gold
from annotation.sources.label_tables import (
    Columns,
    LabelTable,
    is_own_labels,
    read_own_labels,
    read_votes,
)
from plumbline.errors import ConfigError
from plumbline.pages import number, percent

#: A terminal lists no more pairs of people than this; the JSON has all of them.
_PAIRS_SHOWN = 30
_ENTRIES_SHOWN = 6


class Section(NamedTuple):
    """A table with a title."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class AgreementReport:
    """Agreement in a file of labels."""

    file: Path
    agreement: Agreement
    table: LabelTable | None = None
    """How the file was read; None for Plumbline's own labels."""
    labels: LabelAgreement | None = None
    """Strength, aspects and people, where the file holds Plumbline's own labels."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types; the numbers of agreement are at the top level in every case."""
        values: dict[str, Any] = {"file": str(self.file), "form": "labels"}
        if self.table is not None:
            values |= {
                "form": self.table.form,
                "columns": asdict(self.table.columns),
                "guessed": list(self.table.guessed),
                "missing": dict(self.table.missing),
                "look_alikes": [list(names) for names in self.table.look_alikes],
                "people_alike": [list(names) for names in self.table.people_alike],
            }
        values |= self.agreement.as_dict()
        if self.labels is not None:
            beyond = self.labels.as_dict()
            del beyond["choice"]
            values["labels"] = beyond
        return values

    def head(self) -> list[str]:
        """Return what was read, and how."""
        agreement = self.agreement
        lines = [
            f"{self.file}: {agreement.items:,} items with a vote, "
            f"{len(agreement.people):,} people, {agreement.votes:,} votes; "
            f"{agreement.items_with_two_votes:,} items have two votes or more."
        ]
        if self.table is not None:
            lines.append(_read_as(self.table))
        if self.labels is not None:
            purposes = ", ".join(f"{n:,} {name}" for name, n in self.labels.purposes.items() if n)
            lines.append(f"Labels by purpose: {purposes}. Only votes count for agreement.")
        return lines

    def tables(self) -> list[Section]:
        """Return the tables."""
        sections = [_headline(self.agreement), _choices(self.agreement)]
        if self.labels is not None and (self.labels.aspects or self.labels.strength):
            sections.append(_aspects(self.labels))
        sections.append(_pairs(self.agreement))
        sections.append(_people(self.agreement))
        if self.labels is not None:
            sections.append(_own_statistics(self.labels))
        return sections

    def notes(self) -> list[str]:
        """Return what a reader must know about the numbers: what they leave out, and why."""
        return reading_notes(self.table, self.labels) + agreement_notes(self.agreement)


def report_on(
    file: Path,
    columns: Columns = Columns(),  # noqa: B008 - it is frozen
    no_vote: Sequence[str] = (),
    order: Sequence[str] | None = None,
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 - it is frozen
) -> AgreementReport:
    """Read a table of labels and measure agreement in it."""
    if is_own_labels(file):
        if columns != Columns() or no_vote:
            raise ConfigError(
                f"{file} holds labels as Plumbline writes them, whose columns are known. Leave out "
                "--people, --item, --person, --label and --missing."
            )
        labels = read_own_labels(file)
        if order is not None:
            check_order(order, sorted({label.choice for label in labels}))
        folder = file if file.is_dir() else file.parent
        measured = measure_labels(labels, read_gold(folder), order or ORDER, bootstrap)
        return AgreementReport(file, measured.choice, labels=measured)
    table = read_votes(file, columns, no_vote)
    if order is not None:
        check_order(order, table.votes.categories)
    return AgreementReport(file, measure_agreement(table.votes, order, bootstrap), table)


def agreement_notes(agreement: Agreement) -> list[str]:
    """Return why numbers are missing, what they leave out, and how intervals were made."""
    notes = []
    if agreement.pairs_left_out:
        notes.append(
            f"More than {MOST_PAIRS:,} pairs of people may share an item, so there are no figures "
            "for pairs. Measure some people at a time with --people."
        )
    if agreement.fleiss_left_out:
        notes.append(
            f"Fleiss' kappa needs the same number of votes on each item. It uses the items with "
            f"{agreement.fleiss_votes} and leaves out {agreement.fleiss_left_out:,} with another "
            "number."
        )
    if agreement.votes_outside_order:
        notes.append(
            f"Ordinal coefficients leave out {agreement.votes_outside_order:,} votes for "
            f"categories outside the order {', '.join(agreement.order or ())}."
        )
    reasons: dict[str, list[str]] = {}
    for name, estimate in _named(agreement):
        if estimate.reason:
            reasons.setdefault(estimate.reason, []).append(name)
    for reason, names in reasons.items():
        more = len(names) - _ENTRIES_SHOWN
        listed = "; ".join(names[:_ENTRIES_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        notes.append(f"{reason[0].upper()}{reason[1:]}: {listed}.")
    how = agreement.interval
    if how["resamples"]:
        notes.append(
            f"Intervals cover {how['confidence']:.0%}: {how['method']}, {how['resamples']:,} "
            f"resamples, seed {how['seed']}."
        )
    return notes


def share(estimate: Estimate) -> str:
    """Return a share in per cent, with its interval."""
    return percent(estimate.value) + _interval(estimate, percent)


def coefficient(estimate: Estimate | None) -> str:
    """Return a coefficient with three digits and its interval."""
    if estimate is None:
        return number(None)
    return number(estimate.value, 3) + _interval(estimate, lambda value: number(value, 3))


def _interval(estimate: Estimate, shown: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    to = "–" if estimate.low >= 0 else " to "
    return f" ({shown(estimate.low)}{to}{shown(estimate.high)})"


def headline(agreement: Agreement) -> list[tuple[str, str, int]]:
    """Return the headline numbers: name, value with interval, and items."""
    rows = [
        ("equal votes, of two on the same item", share(agreement.agreement), agreement.agreement.n),
        ("Fleiss' kappa", coefficient(agreement.fleiss_kappa), agreement.fleiss_kappa.n),
        ("Krippendorff's alpha", coefficient(agreement.alpha), agreement.alpha.n),
    ]
    if agreement.alpha_ordinal is not None and agreement.order is not None:
        name = f"Krippendorff's alpha, ordinal: {', '.join(agreement.order)}"
        rows.append((name, coefficient(agreement.alpha_ordinal), agreement.alpha_ordinal.n))
    return rows


def _headline(agreement: Agreement) -> Section:
    rows = [(name, value, f"{n:,}") for name, value, n in headline(agreement)]
    return Section("Agreement", ("measure", "value", "items"), rows)


def _choices(agreement: Agreement) -> Section:
    rows = [
        (name, f"{n:,}", percent(n / agreement.votes), f"{agreement.majorities[name]:,}")
        for name, n in agreement.choices.items()
    ]
    rows.append((NO_MAJORITY, "", "", f"{agreement.majorities[NO_MAJORITY]:,}"))
    return Section("Categories", ("category", "votes", "share", "majority of items"), rows)


def _aspects(labels: LabelAgreement) -> Section:
    rows = [
        (name, f"{a.items_with_two_votes:,}", share(a.agreement), coefficient(a.alpha), "–")
        for name, a in labels.aspects.items()
    ]
    if labels.strength is not None:
        s = labels.strength
        rows.append(
            ("strength", f"{s.items_with_two_votes:,}", share(s.agreement), coefficient(s.alpha),
             coefficient(s.alpha_ordinal))
        )  # fmt: skip
    header = ("aspect", "items", "agreement", "Krippendorff's alpha", "ordinal")
    return Section("Aspects and strength", header, rows)


def _pairs(agreement: Agreement) -> Section:
    ordinal = agreement.order is not None
    header = ["two people", "items", "agreement", "Cohen's kappa"]
    shown = lowest_pairs(agreement, _PAIRS_SHOWN)
    rows = [
        [
            " – ".join(pair.people),
            f"{pair.agreement.n:,}",
            share(pair.agreement),
            coefficient(pair.kappa),
            *(
                [coefficient(pair.kappa_linear), coefficient(pair.kappa_quadratic)]
                if ordinal
                else []
            ),
        ]
        for pair in shown
    ]
    more = len(agreement.pairs) - len(shown)
    title = "Pairs of people" + (f": the lowest; {more} more with --json" if more else "")
    return Section(title, header + (["linear", "quadratic"] if ordinal else []), rows)


def lowest_pairs(agreement: Agreement, at_most: int) -> list[PairOfPeople]:
    """Return all pairs of people, or, where these are too many, those with the lowest kappa."""

    def rank(pair: PairOfPeople) -> tuple[bool, float, tuple[str, str]]:
        return pair.kappa.value is None, pair.kappa.value or 0.0, pair.people

    if len(agreement.pairs) <= at_most:
        return list(agreement.pairs)
    return sorted(agreement.pairs, key=rank)[:at_most]


def _people(agreement: Agreement) -> Section:
    rows = [
        (
            person.name,
            f"{person.votes:,}",
            share(person.with_others),
            share(person.with_majority),
            "  ".join(f"{name} {n:,}" for name, n in person.choices.items()),
        )
        for person in agreement.people
    ]
    header = ("person", "votes", "with another", "with the others' majority", "votes by category")
    return Section("People", header, rows)


def _own_statistics(labels: LabelAgreement) -> Section:
    rows = [
        (
            person.name,
            person.source,
            f"{person.labels:,}",
            share(person.gold_accuracy),
            share(person.self_consistency),
            share(person.shown_first),
            number(person.median_seconds.value, 0),
        )
        for person in (*labels.people, labels.everybody)
    ]
    header = ("person", "source", "labels", "gold", "repeats", "shown first", "seconds per label")
    return Section("Gold items, repeats and position", header, rows)


def _read_as(table: LabelTable) -> str:
    columns = table.columns
    item = ", ".join(columns.item) or "the row"
    if table.form == "wide":
        what = f"one column per person ({', '.join(columns.people)}); item: {item}"
    else:
        what = f"one row per vote; item: {item}; person: {columns.person}; label: {columns.label}"
    guessed = f" (guessed: {', '.join(table.guessed)})" if table.guessed else ""
    return f"Read as {what}{guessed}."


def reading_notes(table: LabelTable | None, labels: LabelAgreement | None) -> list[str]:
    """Return what was not counted in the file, or was counted in a way that may surprise."""
    notes = []
    if table is not None and table.missing:
        empty = ", ".join(f"{n:,} {what}" for what, n in table.missing.items())
        notes.append(f"Cells without a vote: {empty}.")
    for names in table.look_alikes if table is not None else ():
        notes.append(f"Counted as different categories: {', '.join(map(repr, names))}.")
    for names in table.people_alike if table is not None else ():
        notes.append(f"Counted as {len(names)} people: {', '.join(map(repr, names))}.")
    if labels is not None and labels.superseded:
        notes.append(
            f"{labels.superseded:,} votes were replaced by a later vote of the same person."
        )
    if labels is not None and labels.gold_unknown:
        notes.append(f"{labels.gold_unknown:,} labels are on gold items without a known answer.")
    return notes


def _named(agreement: Agreement) -> list[tuple[str, Estimate]]:
    named = [
        ("agreement", agreement.agreement),
        ("Fleiss' kappa", agreement.fleiss_kappa),
        ("Krippendorff's alpha", agreement.alpha),
    ]
    if agreement.alpha_ordinal is not None:
        named.append(("ordinal alpha", agreement.alpha_ordinal))
    for pair in agreement.pairs:
        who = " – ".join(pair.people)
        named += [(f"agreement of {who}", pair.agreement), (f"kappa of {who}", pair.kappa)]
        weighted = (("linear", pair.kappa_linear), ("quadratic", pair.kappa_quadratic))
        named += [(f"{kind} kappa of {who}", value) for kind, value in weighted if value]
    for person in agreement.people:
        named += [
            (f"{person.name} with another", person.with_others),
            (f"{person.name} with the majority", person.with_majority),
        ]
    return named
