"""The tables of the report: one function per table, from the content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.page.table import DASH, Column, ReportTable, interval
from evaluation.comparison.page.view import MethodStyle, Row, View, mean, metric_values, std
from evaluation.measures.registry import cautions
from plumbline.pages import number

_AT = {"final": "end of training", "matched": "the budget"}


def leaderboard(view: View) -> ReportTable:
    """Return all policies, the best first: win rate, win rate at equal length, KL and costs."""
    rows = [{**row, **_method(view.style(row["method"]))} for row in view.rows("leaderboard")]
    judge = view.scorer_title(view.judge)
    columns = [
        Column("rank", "rank", "integer"),
        Column("method", "policy", "method"),
        Column("win_rate", f"win rate over {view.baseline_style.title}", "percent"),
        Column("win_rate", f"{view.confidence} interval", "interval"),
        Column("lc_win_rate", "at equal length", "percent"),
        Column("score", judge, "number"),
        Column("score", f"{view.confidence} interval", "interval"),
        Column("kl", "KL, nats", "number"),
        Column("words", "words", "one"),
        Column("seconds", "time", "duration"),
        *_price_columns(view),
    ]
    if view.baseline:
        columns.pop(6)  # one interval is enough
    note = "The best first"
    note += "." if view.of_models else "; each policy is a method, as the mean over its seeds."
    if view.baseline:
        note += " At equal length: the length-controlled win rate, as in AlpacaEval 2."
    return ReportTable("leaderboard", "All policies", _non_empty(columns, rows), rows, note)


def results(view: View) -> ReportTable:
    """Return means over the seeds of every method, at the end and at the budget."""
    scorers = [row["name"] for row in view.scorers]
    judge_rate = f"{view.judge}_win_rate"
    rows: list[dict[str, Any]] = []
    baseline = view.baseline_metrics
    if baseline:
        names = [*scorers, "kl", "words", "finished"]
        rows.append(
            _method(view.baseline_style) | {"at": ""} | {name: baseline.get(name) for name in names}
        )
    any_matched = False
    for style in view.methods:
        final, matched = view.finished(style.name), view.matched(style.name)
        is_same = {row["id"] for row in final} == {row["id"] for row in matched}
        any_matched |= bool(matched)
        for at, policies in (("final", final), ("matched", matched)):
            if policies and not (at == "matched" and is_same):
                where = _AT[at] + (" and the budget" if is_same else "")
                rows.append(_means(style, policies, [*scorers, judge_rate]) | {"at": where})
    columns = [Column("method", "policy", "method")]
    if any_matched:
        columns.append(Column("at", "at"))
    if not view.of_models:
        columns.append(Column("seeds", "seeds", "integer"))
    columns.append(Column(judge_rate, f"win rate over {view.baseline_style.title}", "percent"))
    for name in scorers:
        columns.append(Column(name, view.scorer_title(name), "number"))
        columns.append(Column(f"{name}_seed_std", "±", "number"))
    columns += [
        Column("kl", "KL, nats", "number"),
        Column("words", "words", "one"),
        Column("finished", "ended", "percent"),
    ]
    return ReportTable(
        "results", "Results", _non_empty(columns, rows), rows, _results_note(view, any_matched)
    )


def _results_note(view: View, any_matched: bool) -> str:
    note = "Means over the training seeds; ± is the standard deviation between seeds."
    if view.of_models:
        note = "Means over the prompts."
    if any_matched:
        note += " At the budget: the checkpoint of each seed that is nearest to it"
        by_kl = (view.design.get("budget") or {}).get("by") == "kl"
        note += "; contrasts interpolate between checkpoints." if by_kl else "."
    if view.design.get("checkpoint_prompts") and not view.of_models:
        count = number(view.design["checkpoint_prompts"], 0)
        note += f" Checkpoints during training were evaluated on {count} of the prompts."
    return note


def policies(view: View) -> ReportTable:
    """Return every policy at the end of its training; the CSV has every checkpoint."""
    judge_rate = f"{view.judge}_win_rate"
    raw = [_flat(view, row) for row in view.rows("policies")]
    rows = []
    for style in view.methods:
        for row in view.finished(style.name):
            flat = _flat(view, row)
            kl, se = flat.get("kl"), flat.get("kl_se")
            shown = "" if kl is None else number(kl)
            flat["_kl"] = f"{shown} ± {number(se)}" if shown and se is not None else shown
            rows.append(flat | {"_style": style, "_responses": row["id"]})
    columns = [
        Column("method", "policy", "method"),
        Column("seed", "seed"),
        Column("checkpoint", "step", "integer"),
        *(Column(row["name"], row.get("title") or row["name"], "number") for row in view.scorers),
        Column(judge_rate, "win rate", "percent"),
        Column(judge_rate, f"{view.confidence} interval", "interval"),
        Column("_kl", "KL, nats"),
        Column("words", "words", "one"),
        Column("finished", "ended", "percent"),
    ]
    return ReportTable("policies", "Every seed", _non_empty(columns, rows), rows, raw=raw)


def measures(view: View) -> ReportTable:
    """Return all further measures: one row per measure, one column per method."""
    styles = view.styles if view.baseline else view.methods
    rows = []
    for name in view.further_measures:
        row: dict[str, Any] = {"measure": name}
        for style in styles:
            if style.name is None:
                row[style.title] = view.baseline_metrics.get(name)
            else:
                row[style.title] = mean(metric_values(view.finished(style.name), name))
        rows.append(row)
    columns = [Column("measure", "measure", "code")]
    columns += [Column(style.title, style.title, "compact") for style in styles]
    over = "Means over the responses." if view.of_models else "Means over the seeds."
    note = " ".join([over, *cautions(row["measure"] for row in rows)])
    return ReportTable("measures", "Further measures", columns, rows, note)


def contrasts(view: View) -> ReportTable:
    """Return every contrast, with the difference that the design could have detected."""
    rows = [
        {
            **row,
            "contrast": f"{view.style(row['a']).title} against {view.style(row['b']).title}",
            "_at": _AT.get(row.get("at") or "", row.get("at")),
            "_scorer": view.scorer_title(row.get("scorer") or view.judge),
            "difference_low": row.get("low"),
            "difference_high": row.get("high"),
        }
        for row in view.rows("contrasts")
    ]
    columns = [
        Column("contrast", "contrast"),
        *([] if view.of_models else [Column("_at", "at")]),
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
        "Detectable: the smallest true difference that a design with these "
        f"{'prompts' if view.of_models else 'seeds and prompts'} "
        "detects four times in five. Adjusted: p-values corrected for the number of contrasts "
        "(Holm). At equal length: the length-controlled win rate, as in AlpacaEval 2."
    )
    return ReportTable("contrasts", "Contrasts", _non_empty(columns, rows), rows, note)


def ranking(view: View) -> ReportTable:
    """Return the Bradley-Terry ranking."""
    rows = [
        _method(view.style(row["name"]))
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
    note = "Bradley-Terry strengths over all responses to the same prompts; their mean is 0."
    return ReportTable("ranking", "Ranking", columns, rows, note)


def frontiers(view: View) -> ReportTable:
    """Return the area under each frontier and the fit of Gao et al."""
    rows = []
    for row in view.rows("frontier"):
        fit = row.get("fit") or {}
        if row.get("area") is None and not fit:  # a single checkpoint
            continue
        rows.append(
            _method(view.style(row["method"]))
            | {
                "scorer": row["scorer"],
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
        Column("method", "policy", "method"),
        Column("_scorer", "score"),
        Column("area", "mean up to this KL", "number"),
        Column("area", f"{view.confidence} interval", "interval"),
        Column("area_to", "KL, nats", "number"),
        Column("fit_alpha", "α", "number"),
        Column("fit_beta", "β", "number"),
        Column("fit_r_squared", "R²", "number"),
        Column("_peak", "peak at KL"),
    ]
    note = "The mean score over √KL from 0 to the KL beside it."
    if any(row["fit_form"] for row in rows):
        note += (
            " α and β: the fit d (α − β log d) of Gao et al. (2023), or d (α − β d) for best of n, "
            "with d = √KL. A peak beyond the largest measured KL follows from the form of the "
            "curve only and is not given."
        )
    return ReportTable("frontiers", "Under the frontier", _non_empty(columns, rows), rows, note)


def _peak(fit: Mapping[str, Any]) -> str | None:
    """Return where a fit peaks, in words where that is beyond the measured KL."""
    peak, seen = fit.get("peak_kl"), fit.get("seen_to")
    if not fit:
        return None
    if peak is None:
        return "none"
    return f"{peak:.2f}" if seen is None or peak <= seen else f"not up to {seen:.2f}"


def subsets(view: View) -> ReportTable:
    """Return the judge's mean on every subset of the prompts: one column per method."""
    rows, raw, names = [], [], dict[str, None]()
    for row in view.rows("subsets"):
        shown: dict[str, Any] = {"subset": row["subset"], "prompts": row.get("prompts")}
        for name, cell in (row.get("cells") or {}).items():
            names.setdefault(name)
            low, high = (cell or {}).get("low"), (cell or {}).get("high")
            around = interval({"m_low": low, "m_high": high}, "m")
            text = number((cell or {}).get("mean"))
            shown[f"_{name}"] = text if around == DASH else f"{text} ({around})"
            raw.append({"subset": row["subset"], "prompts": row.get("prompts"), "method": name}
                       | dict(cell or {}))  # fmt: skip
        rows.append(shown)
    columns = [Column("subset", "subset"), Column("prompts", "prompts", "integer")]
    columns += [Column(f"_{name}", view.style(name).title) for name in names]
    judge = view.scorer_title(view.judge, unit=True)
    note = f"Mean {judge}, with {view.confidence} intervals."
    return ReportTable("subsets", "By subset", columns, rows, note, raw)


def costs(view: View) -> ReportTable:
    """Return the costs of each method."""
    rows = [{**row, **_method(view.style(row["method"]))} for row in view.rows("costs")]
    columns = [
        Column("method", "policy", "method"),
        Column("seconds", "time", "duration"),
        *_price_columns(view),
        Column("memory", "peak memory", "size"),
        Column("steps", "optimizer steps", "integer"),
        Column("tokens", "tokens", "integer"),
        Column("responses", "responses", "integer"),
    ]
    note = "Time is wall time."
    if not view.of_models:
        note = f"Means over seeds: one training each, without the stages that all share. {note}"
    if any(row.get("energy") for row in rows):
        note += (
            " Energy by the counters of the machine, all that ran on it included."
            if _is_measured(view)
            else " Energy is an estimate: the machine did not count it. It is processor time at 10 "
            "watts per core, or time at the power that is set (prices.watts)."
        )
    return ReportTable("costs", "Cost", _non_empty(columns, rows), rows, note)


def _price_columns(view: View) -> list[Column]:
    estimate = "" if _is_measured(view) else " (estimate)"
    return [
        Column("energy", f"energy{estimate}", "energy"),
        Column("money", f"price, {view.content.get('currency') or ''}", "number"),
    ]


def _is_measured(view: View) -> bool:
    """Whether the machine counted the energy of every method."""
    return all(row.get("energy_is_measured") for row in view.rows("costs") if row.get("energy"))


def csv_only_tables(view: View) -> list[ReportTable]:
    """Return the tables that are kept as CSV only: the data of the charts."""
    frontier = [
        {"method": view.style(row["method"]).title, "scorer": row["scorer"], **point}
        for row in view.rows("frontier")
        for point in row.get("points") or []
    ]
    parts = [dict(row) | {"method": view.style(row["method"]).title} for row in view.rows("parts")]
    return [
        ReportTable("frontier", "Frontier", [], frontier),
        ReportTable("training", "Training", [], [dict(row) for row in view.rows("training")]),
        ReportTable("parts", "Parts", [], parts),
    ]


def _method(style: MethodStyle) -> dict[str, Any]:
    return {"method": style.title, "_style": style}


def _means(style: MethodStyle, policies: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """Return the means of metrics over seeds, and their standard deviations between seeds."""
    row = _method(style) | {"seeds": len({p.get("seed") for p in policies})}
    for name in (*names, "kl", "words", "finished"):
        values = metric_values(policies, name)
        row |= {name: mean(values), f"{name}_seed_std": std(values)}
    return row


def _flat(view: View, row: Row) -> dict[str, Any]:
    """Return a policy with its metrics and costs side by side."""
    head = {key: value for key, value in row.items() if key not in {"metrics", "costs"}}
    head["method"] = view.style(row["method"]).title
    costs = {f"cost_{key}": value for key, value in (row.get("costs") or {}).items()}
    return head | dict(row.get("metrics") or {}) | costs


def _non_empty(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Return the columns that have something to show."""
    return [column for column in columns if any(column.shown(row) != DASH for row in rows)]
