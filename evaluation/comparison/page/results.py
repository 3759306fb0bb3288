"""What the report's tables hold: one function a table, from the content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.page.tables import DASH, Column, Table, interval
from evaluation.comparison.page.view import BASELINE, Row, View, Who, figures, mean, spread
from plumbline.pages import number

_AT = {"final": "end of training", "matched": "the budget"}


def results(view: View) -> Table:
    """Return means over the seeds of every method, at the end and at the budget."""
    scorers = [row["name"] for row in view.scorers]
    judge_rate = f"{view.judge}_win_rate"
    rows: list[dict[str, Any]] = []
    mine = view.baseline.get("figures") or {}
    if mine:
        shown = [*scorers, "kl", "words", "finished"]
        rows.append(
            _method(view.people[BASELINE]) | {"at": ""} | {name: mine.get(name) for name in shown}
        )
    some_matched = False
    for who in view.methods:
        final, matched = view.finished(who.name), view.matched(who.name)
        same = {row["id"] for row in final} == {row["id"] for row in matched}
        some_matched |= bool(matched)
        for at, policies in (("final", final), ("matched", matched)):
            if policies and not (at == "matched" and same):
                where = _AT[at] + (" and the budget" if same else "")
                rows.append(_means(who, policies, [*scorers, judge_rate]) | {"at": where})
    columns = [Column("method", "policy", "method")]
    if some_matched:
        columns.append(Column("at", "at"))
    columns.append(Column("seeds", "seeds", "integer"))
    columns.append(Column(judge_rate, f"win rate over {view.people[BASELINE].title}", "percent"))
    for name in scorers:
        columns.append(Column(name, view.scorer_title(name), "number"))
        columns.append(Column(f"{name}_between_seeds", "±", "number"))
    columns += [
        Column("kl", "KL, nats", "number"),
        Column("words", "words", "one"),
        Column("finished", "ended", "percent"),
    ]
    note = "Means over the training seeds; ± is the standard deviation between them."
    if some_matched:
        note += " At the budget stands each seed's checkpoint that is nearest to it"
        by_kl = (view.design.get("budget") or {}).get("by") == "kl"
        note += "; contrasts interpolate between checkpoints." if by_kl else "."
    if view.design.get("prompts_at_looks"):
        count = number(view.design["prompts_at_looks"], 0)
        note += f" Checkpoints on the way were judged on {count} of the prompts."
    return Table("results", "Results", _known(columns, rows), rows, note)


def policies(view: View) -> Table:
    """Return every policy at the end of its training; the CSV has every checkpoint."""
    judge_rate = f"{view.judge}_win_rate"
    shown, raw = [], []
    for row in view.rows("policies"):
        raw.append(_flat(view, row))
    for who in view.methods:
        for row in view.finished(who.name):
            flat = _flat(view, row)
            kl, error = flat.get("kl"), flat.get("kl_error")
            known = None if kl is None else number(kl)
            flat["_kl"] = f"{known} ± {number(error)}" if known and error is not None else known
            flat["_who"] = who
            flat["_answers"] = row["id"]
            shown.append(flat)
    columns = [
        Column("method", "policy", "method"),
        Column("seed", "seed"),
        Column("checkpoint", "step", "integer"),
        *(Column(row["name"], row.get("title") or row["name"], "number") for row in view.scorers),
        Column(judge_rate, "win rate", "percent"),
        Column(judge_rate, f"{view.confidence} interval", "interval"),
        Column("_kl", "KL, nats", "list"),
        Column("words", "words", "one"),
        Column("finished", "ended", "percent"),
    ]
    for row in shown:
        row["_kl"] = [row["_kl"]] if row["_kl"] else []
    return Table("policies", "Every seed", _known(columns, shown), shown, raw=raw)


def measures(view: View) -> Table:
    """Return whatever else was measured: a row a measure, a column a method."""
    people = list(view.people.values())
    rows = []
    for name in view.further_measures:
        row: dict[str, Any] = {"measure": name}
        mine = (view.baseline.get("figures") or {}).get(name)
        row |= {BASELINE: mine} if view.baseline else {}
        row |= {who.name: mean(figures(view.finished(who.name), name)) for who in view.methods}
        rows.append(row)
    columns = [Column("measure", "measure", "code")]
    columns += [
        Column(who.name, who.title, "compact") for who in people if who.index or view.baseline
    ]
    return Table("measures", "Further measures", columns, rows, "Means over the seeds.")


def contrasts(view: View) -> Table:
    """Return every contrast, with what the design could have detected."""
    rows = []
    for row in view.rows("contrasts"):
        ours, theirs = view.who(row["a"]).title, view.who(row["b"]).title
        rows.append(
            {
                **row,
                "contrast": f"{ours} against {theirs}",
                "_at": _AT.get(row.get("at") or "", row.get("at")),
                "_scorer": view.scorer_title(row.get("scorer") or view.judge),
                "difference_low": row.get("low"),
                "difference_high": row.get("high"),
            }
        )
    columns = [
        Column("contrast", "contrast"),
        Column("_at", "at"),
        Column("_scorer", "by"),
        Column("difference", "difference", "signed"),
        Column("difference", f"{view.confidence} interval", "interval"),
        Column("p", "p", "p"),
        Column("p_adjusted", "p, adjusted", "p"),
        Column("detectable", "detectable", "number"),
        Column("win_rate", "win rate", "percent"),
        Column("win_rate", f"{view.confidence} interval", "interval"),
        Column("lc_win_rate", "at equal length", "percent"),
    ]
    note = (
        "Detectable is the smallest difference that a design with these seeds and prompts would "
        "have found four times in five: a smaller true one may well have gone unseen. Adjusted "
        "p-values allow for the number of contrasts. At equal length is the win rate with the "
        "effect of length taken out, as in AlpacaEval 2."
    )
    return Table("contrasts", "Contrasts", _known(columns, rows), rows, note)


def ranking(view: View) -> Table:
    """Return the Bradley-Terry ranking."""
    rows = [
        _method(view.who(row["name"]))
        | {
            "strength": row.get("strength"),
            "strength_low": row.get("low"),
            "strength_high": row.get("high"),
        }
        for row in view.rows("ranking")
    ]
    columns = [
        Column("method", "policy", "method"),
        Column("strength", "strength, log odds", "signed"),
        Column("strength", f"{view.confidence} interval", "interval"),
    ]
    note = "Bradley-Terry strengths over all answers to the same prompts; their mean is 0."
    return Table("ranking", "Ranking", columns, rows, note)


def frontiers(view: View) -> Table:
    """Return the area under each frontier and the fit of Gao et al."""
    rows, raw = [], []
    for row in view.rows("frontier"):
        fit = row.get("fit") or {}
        head = _method(view.who(row["method"])) | {"scorer": row["scorer"]}
        raw += [head | dict(point) for point in row.get("points") or []]
        rows.append(
            head
            | {
                "_scorer": view.scorer_title(row["scorer"]),
                **{key: row.get(key) for key in ("area", "area_low", "area_high", "area_to")},
                **{
                    f"fit_{key}": fit.get(key)
                    for key in ("form", "alpha", "beta", "r_squared", "peak_kl", "seen_to")
                },
                "_peak": _peak(fit),
            }
        )
    columns = [
        Column("method", "method", "method"),
        Column("_scorer", "score"),
        Column("area", "mean up to the KL beside", "number"),
        Column("area", f"{view.confidence} interval", "interval"),
        Column("area_to", "KL, nats", "number"),
        Column("fit_alpha", "α", "number"),
        Column("fit_beta", "β", "number"),
        Column("fit_r_squared", "R²", "number"),
        Column("_peak", "peak at KL"),
    ]
    note = (
        "The mean score over √KL from 0 to the KL given. α and β: the fit d (α − β log d) of Gao "
        "et al. (2023), or d (α − β d) for best-of-n, with d = √KL; a peak beyond the "
        "largest KL seen is only the curve's form, and is not given."
    )
    return Table("frontiers", "Under the frontier", _known(columns, rows), rows, note)


def _peak(fit: Mapping[str, Any]) -> str | None:
    """Return where a fit peaks, in words where nothing was seen there."""
    peak, seen = fit.get("peak_kl"), fit.get("seen_to")
    if not fit:
        return None
    if peak is None:
        return "none"
    return f"{peak:.2f}" if seen is None or peak <= seen else f"not up to {seen:.2f}"


def frontier_points(view: View) -> Table:
    """Return the frontiers' points, for the CSV."""
    rows = [
        {"method": row["method"], "scorer": row["scorer"], **point}
        for row in view.rows("frontier")
        for point in row.get("points") or []
    ]
    return Table("frontier", "Frontier", [], rows)


def subsets(view: View) -> Table:
    """Return the judge's mean on every subset of the prompts: a column a method."""
    rows, raw, names = [], [], dict[str, None]()
    for row in view.rows("subsets"):
        shown: dict[str, Any] = {"subset": row["subset"], "prompts": row.get("prompts")}
        for name, cell in (row.get("cells") or {}).items():
            names.setdefault(name)
            low, high = (cell or {}).get("low"), (cell or {}).get("high")
            around = interval({"m_low": low, "m_high": high}, "m")
            text = number((cell or {}).get("mean"))
            shown[f"_{name}"] = text if around == DASH else f"{text} ({around})"
            raw.append({**shown, "method": name, **(cell or {})})
        rows.append(shown)
    columns = [Column("subset", "subset"), Column("prompts", "prompts", "integer")]
    columns += [Column(f"_{name}", view.who(name).title) for name in names]
    judge = view.scorer_title(view.judge, unit=True)
    note = f"Mean {judge}, with {view.confidence} intervals."
    return Table("subsets", "By subset", columns, rows, note, raw)


def costs(view: View) -> Table:
    """Return what each method cost."""
    rows = [{**row, **_method(view.who(row["method"]))} for row in view.rows("costs")]
    columns = [
        Column("method", "method", "method"),
        Column("seconds", "time", "duration"),
        Column("memory", "peak memory", "size"),
        Column("steps", "optimiser steps", "integer"),
        Column("tokens", "tokens", "integer"),
        Column("responses", "responses", "integer"),
    ]
    return Table("costs", "Cost", _known(columns, rows), rows, "Means over seeds.")


def lineage(view: View) -> Table:
    """Return what was made from what."""
    columns = [
        Column("stage", "stage"),
        Column("artifact", "artifact", "code"),
        Column("inputs", "made from", "list"),
        Column("seed", "seed"),
        Column("seconds", "time", "duration"),
        Column("memory", "peak memory", "size"),
    ]
    return Table("lineage", "Lineage", columns, [dict(row) for row in view.rows("lineage")])


def left_out(view: View) -> Table:
    """Return what each stage left out, and why."""
    columns = [
        Column("stage", "stage"),
        Column("reason", "reason", "wrap"),
        Column("count", "rows", "integer"),
        Column("rows", "row numbers", "wrap"),
    ]
    note = "Every one of these rows is kept in dropped.jsonl of its stage, with its origin."
    return Table(
        "left_out", "Left out", columns, [dict(row) for row in view.rows("left_out")], note
    )


def differences(view: View) -> Table:
    """Return the settings in which the methods or runs differ."""
    names = dict.fromkeys(
        name for row in view.rows("differences") for name in row.get("values") or {}
    )
    rows = [{"key": row["key"], **(row.get("values") or {})} for row in view.rows("differences")]
    columns = [Column("key", "setting", "code")]
    columns += [Column(name, view.who(name).title, "wrap") for name in names]
    return Table("differences", "Different settings", columns, rows)


def settings(view: View) -> Table:
    """Return all settings."""
    columns = [
        Column("key", "setting", "code"),
        Column("value", "value", "wrap"),
        Column("documentation", "what it does", "wrap"),
    ]
    return Table("settings", "Settings", columns, [dict(row) for row in view.rows("settings")])


def bare(view: View) -> list[Table]:
    """Return the tables that are kept as CSV only: what the charts are drawn from."""
    return [
        frontier_points(view),
        Table("training", "Training", [], [dict(row) for row in view.rows("training")]),
        Table("parts", "Parts", [], [dict(row) for row in view.rows("parts")]),
    ]


def _method(who: Who) -> dict[str, Any]:
    return {"method": who.title, "_who": who}


def _means(who: Who, policies: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """Return the means of figures over seeds, and of the scorers the spread between them."""
    row = _method(who) | {"seeds": len({p.get("seed") for p in policies})}
    for name in (*names, "kl", "words", "finished"):
        values = figures(policies, name)
        row |= {name: mean(values), f"{name}_between_seeds": spread(values)}
    return row


def _flat(view: View, row: Row) -> dict[str, Any]:
    """Return a policy with its figures and costs side by side."""
    head = {key: value for key, value in row.items() if key not in {"figures", "costs"}}
    head["method"] = view.who(row["method"]).title
    costs = {f"cost_{key}": value for key, value in (row.get("costs") or {}).items()}
    return head | dict(row.get("figures") or {}) | costs


def _known(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Return the columns that have something to show."""
    return [column for column in columns if any(column.shown(row) != DASH for row in rows)]
