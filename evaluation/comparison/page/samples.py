"""The answers, packed for the sample browser: columns instead of records, compressed."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.page.view import BASELINE, View, finite

#: A score's digits: more than the browser shows, fewer than a float's text takes.
_DIGITS = 4


def pack(view: View) -> dict[str, Any]:
    """Return all prompts and answers as columns, as the page's script reads them.

    ``texts[policy][row]`` is an answer or null, ``scores[policy][scorer][row]`` a number or null,
    ``cut[policy]`` the rows whose answer did not end by itself. Rows are those of ``prompts``.
    """
    prompts = list(view.samples.get("prompts") or [])
    answers: Mapping[str, Sequence[Any]] = view.samples.get("answers") or {}
    ids = [name for name in view.samples.get("policies") or list(answers) if name in answers]
    return {
        "policies": [_policy(view, policy_id) for policy_id in ids],
        "scorers": [
            {"name": row["name"], "title": row.get("title") or row["name"]} for row in view.scorers
        ],
        "prompts": [
            {
                "id": str(prompt.get("id", number)),
                "subset": prompt.get("subset") or "",
                "messages": [[m["role"], m["content"]] for m in prompt.get("messages") or []],
            }
            for number, prompt in enumerate(prompts)
        ],
        "texts": [_texts(answers[name], len(prompts)) for name in ids],
        "scores": [
            {row["name"]: _scores(answers[name], row["name"], len(prompts)) for row in view.scorers}
            for name in ids
        ],
        "tokens": [_column(answers[name], "tokens", len(prompts)) for name in ids],
        "cut": [
            [
                number
                for number, answer in enumerate(answers[name])
                if answer and answer.get("finished") is not None and not answer["finished"]
            ]
            for name in ids
        ],
    }


def as_json(view: View) -> bytes:
    """Return the packed answers as JSON."""
    text = json.dumps(pack(view), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A surrogate that stands alone is no character, and UTF-8 has no bytes for it.
    return text.encode("utf-8", "replace")


def compressed(text: bytes) -> bytes:
    """Return a text gzipped; equal texts give equal bytes."""
    return gzip.compress(text, compresslevel=6, mtime=0)


def embedded(view: View) -> str:
    """Return the compressed answers in letters that mean nothing to HTML."""
    return base64.b64encode(compressed(as_json(view))).decode("ascii")


def selection(view: View, count: int) -> list[dict[str, Any]]:
    """Return some prompts with the answers of the baseline and one final policy a method.

    They stand at even distances on the way from the first method's greatest loss against the
    baseline to its greatest gain; in the order of prompts where nothing can be compared.
    """
    prompts = list(view.samples.get("prompts") or [])
    answers: Mapping[str, Sequence[Any]] = view.samples.get("answers") or {}
    shown = [BASELINE] if BASELINE in answers else []
    for name in view.people:
        mine = [row["id"] for row in view.finished(name) if row["id"] in answers]
        shown += mine[:1]
    shown = shown or list(answers)[:2]
    if not shown or not prompts:
        return []

    def gain(row: int) -> float:
        first, second = (_score(answers[name][row], view.judge) for name in shown[:2])
        return 0.0 if first is None or second is None else second - first

    order = sorted(range(len(prompts)), key=gain) if len(shown) > 1 else list(range(len(prompts)))
    count = min(count, len(order))
    places = [round(i * (len(order) - 1) / max(1, count - 1)) for i in range(count)]
    return [
        {
            "messages": prompts[row].get("messages") or [],
            "answers": [
                {"policy": view.policy_title(name)} | (finite(answers[name][row]) or {"text": None})
                for name in shown
            ],
        }
        for row in (order[place] for place in places)
    ]


def _policy(view: View, policy_id: str) -> dict[str, Any]:
    row = view.policies.get(policy_id, {})
    who = view.who(row.get("method") or policy_id)
    return {
        "id": policy_id,
        "title": view.policy_title(policy_id),
        "method": who.title,
        "look": who.color,
        "sign": who.sign,
        "final": bool(row.get("final")),
    }


def _texts(answers: Sequence[Any], count: int) -> list[str | None]:
    found = [answer.get("text") if answer else None for answer in answers]
    return (found + [None] * count)[:count]


def _scores(answers: Sequence[Any], scorer: str, count: int) -> list[float | None]:
    found = [_score(answer, scorer) for answer in answers]
    return (found + [None] * count)[:count]


def _score(answer: Any, scorer: str) -> float | None:
    value = finite((answer.get("scores") or {}).get(scorer)) if answer else None
    return None if value is None else round(float(value), _DIGITS)


def _column(answers: Sequence[Any], key: str, count: int) -> list[Any]:
    found = [finite(answer.get(key)) if answer else None for answer in answers]
    return (found + [None] * count)[:count]
