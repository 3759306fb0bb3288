"""The responses, packed for the sample browser: columns instead of records, compressed."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.page.view import View, finite
from evaluation.comparison.page_content import BASELINE_ID

#: A score's digits: more than the browser shows, fewer than a float's text takes.
_DIGITS = 4


def pack(view: View) -> dict[str, Any]:
    """Return all prompts and responses as columns, as the script of the page reads them.

    ``texts[policy][row]`` is a response or null, ``scores[policy][scorer][row]`` a number or null,
    ``cut[policy]`` the rows whose response did not end by itself. Rows are those of ``prompts``.
    """
    prompts = list(view.samples.get("prompts") or [])
    responses = _responses(view)
    ids = [name for name in view.samples.get("policies") or list(responses) if name in responses]
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
        "texts": [_texts(responses[name], len(prompts)) for name in ids],
        "scores": [
            {
                row["name"]: _scores(responses[name], row["name"], len(prompts))
                for row in view.scorers
            }
            for name in ids
        ],
        "tokens": [_column(responses[name], "tokens", len(prompts)) for name in ids],
        "cut": [
            [
                number
                for number, response in enumerate(responses[name])
                if response and response.get("finished") is not None and not response["finished"]
            ]
            for name in ids
        ],
    }


def as_json(view: View) -> bytes:
    """Return the packed responses as JSON."""
    text = json.dumps(pack(view), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # UTF-8 has no bytes for a lone surrogate.
    return text.encode("utf-8", "replace")


def compressed(text: bytes) -> bytes:
    """Return a gzipped text; equal texts give equal bytes."""
    return gzip.compress(text, compresslevel=6, mtime=0)


def embedded(view: View) -> str:
    """Return the compressed responses in characters that have no meaning in HTML."""
    return base64.b64encode(compressed(as_json(view))).decode("ascii")


def selection(view: View, count: int) -> list[dict[str, Any]]:
    """Return some prompts with the responses of the baseline and one final policy per method.

    They are spaced evenly from the first method's largest loss against the baseline to its largest
    gain; in the order of the prompts where there is no score to compare.
    """
    prompts = list(view.samples.get("prompts") or [])
    responses = _responses(view)
    shown = [BASELINE_ID] if BASELINE_ID in responses else []
    for style in view.methods:
        ids = [row["id"] for row in view.finished(style.name) if row["id"] in responses]
        shown += ids[:1]
    shown = shown or list(responses)[:2]
    if not shown or not prompts:
        return []

    def gain(row: int) -> float:
        first, second = (_score(responses[name][row], view.judge) for name in shown[:2])
        return 0.0 if first is None or second is None else second - first

    order = sorted(range(len(prompts)), key=gain) if len(shown) > 1 else list(range(len(prompts)))
    count = min(count, len(order))
    places = [round(i * (len(order) - 1) / max(1, count - 1)) for i in range(count)]
    return [
        {
            "messages": prompts[row].get("messages") or [],
            "responses": [
                {"policy": view.policy_title(name)}
                | (finite(responses[name][row]) or {"text": None})
                for name in shown
            ],
        }
        for row in (order[place] for place in places)
    ]


def _responses(view: View) -> Mapping[str, Sequence[Any]]:
    responses: Mapping[str, Sequence[Any]] = view.samples.get("responses") or {}
    return responses


def _policy(view: View, policy_id: str) -> dict[str, Any]:
    row = view.policies.get(policy_id, {})
    style = view.style(None if policy_id == BASELINE_ID else row.get("method") or policy_id)
    return {
        "id": policy_id,
        "title": view.policy_title(policy_id),
        "method": style.title,
        "color": style.color,
        "sign": style.sign,
        "final": bool(row.get("final")),
    }


def _texts(responses: Sequence[Any], count: int) -> list[str | None]:
    texts = [response.get("text") if response else None for response in responses]
    return (texts + [None] * count)[:count]


def _scores(responses: Sequence[Any], scorer: str, count: int) -> list[float | None]:
    scores = [_score(response, scorer) for response in responses]
    return (scores + [None] * count)[:count]


def _score(response: Any, scorer: str) -> float | None:
    value = finite((response.get("scores") or {}).get(scorer)) if response else None
    return None if value is None else round(float(value), _DIGITS)


def _column(responses: Sequence[Any], key: str, count: int) -> list[Any]:
    values = [finite(response.get(key)) if response else None for response in responses]
    return (values + [None] * count)[:count]
