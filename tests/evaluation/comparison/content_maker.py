"""Content of a comparison as it may be: realistic, minimal and hostile, for tests and benchmarks.

Every number comes from a generator with a seed of its own; nothing was measured.
"""

from __future__ import annotations

import math
import random
from typing import Any

_TEXT = (
    "the umbrella order arrives in three days and you can return it within thirty days free of "
    "charge our large red model costs eighteen euros we have it in stock thank you for asking "
    "please tell me the number of your order so that I can look it up for you"
)
WORDS = _TEXT.split()
SUBSETS = ("returns", "prices", "delivery", "stock", "opening hours")
HOSTILE = (
    '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">',
    "\"quotes' and {{ braces }} and ${dollars} &amp; \\u003c </ScRiPt >",
    "שלום עולם, זה טקסט מימין לשמאל \u202e and an override that is never closed",
    "👩‍👩‍👧‍👦 🏳️‍🌈 日本語のテキスト ✨ \u2028 \u2029 \x00 \ud800",
    "long " * 20_000,
    "",
    "   \n\n  ",
)


def minimal() -> dict[str, Any]:
    """Return content with nothing in it."""
    lists = (
        "verdict", "flags", "scorers", "methods", "policies", "contrasts", "ranking", "frontier",
        "training", "subsets", "parts", "costs", "lineage", "dropped", "differences", "settings",
        "leaderboard", "run_settings",
    )  # fmt: skip
    return {
        "title": "Nothing", "version": "0", "status": "finished", "judge": "reward",
        "has_gold": False, "baseline": {"name": "sft", "title": "SFT", "metrics": {}},
        "design": {"seeds": {}, "prompts": 0, "confidence": 0.95, "budget": None},
        "currency": None,
        "headline": {"so_far": False, "title": "Nothing to compare yet", "margin": [], "basis": "",
                     "trust": [], "missing": []},
        "reward_model": None, "samples": {"policies": [], "prompts": [], "responses": {}},
    } | {name: [] for name in lists}  # fmt: skip


def external(prompts: int = 8) -> dict[str, Any]:
    """Return a comparison of somebody's samples: no gold, no KL, no lineage, no training."""
    rng = random.Random(1)
    content = minimal() | {
        "title": "Outside",
        "verdict": ["B did better than A."],
        "scorers": [{"name": "reward", "title": "reward-model score", "unit": "std"}],
        "methods": [{"name": "a", "title": "Model A"}, {"name": "b", "title": "Model B"}],
        "baseline": None,
        "policies": [
            {
                "id": name, "method": name, "seed": None, "checkpoint": None, "progress": None,
                "final": True, "matched": False, "costs": {},
                "metrics": {"reward": value, "kl": None, "gold": None, "distinct_2": 0.71},
            }
            for name, value in (("a", 0.1), ("b", 0.4))
        ],
    }  # fmt: skip
    return content | {"samples": _samples(rng, ["a", "b"], prompts, {"a": 0.1, "b": 0.4})}


def content(
    methods: int = 2,
    seeds: int = 5,
    checkpoints: int = 6,
    prompts: int = 60,
    *,
    status: str = "finished",
    sampled: int | None = None,
    words: int = 60,
    steps: int = 120,
) -> dict[str, Any]:
    """Return a whole comparison, in which the second method over-optimizes.

    ``sampled``: how many policies keep their responses: the baseline, then final ones (None: all
    final ones); ``words``: the mean length of a response; ``steps``: those of each training metric.
    """
    rng = random.Random(0)
    names = ["dpo", "ppo", "rloo", "kto", "simpo", "orpo", "grpo", "cpo", "best-of-n"][:methods]
    policies = [
        _policy(rng, name, place, seed, step, checkpoints)
        for place, name in enumerate(names)
        for seed in range(seeds)
        for step in range(1, checkpoints + 1)
    ]
    final = [row for row in policies if row["final"]]
    kept = ["baseline", *(row["id"] for row in final)][:sampled]
    level = {row["id"]: row["metrics"]["gold"] for row in final}
    pairs = [(b, a) for i, a in enumerate(names) for b in names[i + 1 :]]
    return {
        "title": "DPO against PPO",
        "version": "0.6.0",
        "status": status,
        "judge": "gold",
        "has_gold": True,
        "verdict": [
            "At KL 4.0 nats PPO's answers are worth 0.21 points more than DPO's (95% interval "
            "0.02 to 0.40, p = 0.03); this design would have found a difference of 0.26 points.",
            "At the end of training the methods' intervals overlap; this does not tell which is "
            "better.",
        ],
        "headline": {
            "so_far": status == "running",
            "title": "PPO is better than DPO",
            "margin": ["It scores 0.21 points of gold utility more than DPO at the same budget."],
            "basis": f"{prompts} prompts, {seeds} training seeds per method; the judge is gold.",
            "trust": ["The judge is the true utility of the embedded world, not a model."],
            "missing": ["PPO, seed 4: in training, evaluated at step 20"] * (status == "running"),
        },
        "leaderboard": [
            {
                "rank": rank, "method": name, "win_rate": 0.9 - 0.05 * rank,
                "win_rate_low": 0.8 - 0.05 * rank, "win_rate_high": 0.95 - 0.05 * rank,
                "lc_win_rate": 0.88 - 0.05 * rank, "score": 4.0, "kl": 3.0, "words": 30.0,
                "seconds": 1200.0, "energy": 0.021, "money": 0.8, "seeds": seeds,
            }
            for rank, name in enumerate([*names, None], 1)
        ],
        "run_settings": [{"key": "ppo.kl.target", "values": {"first": "4.0", "second": "6.0"}}],
        "currency": "$",
        "flags": [
            {"level": "note", "text": "A remark on the data."},
            {"level": "warning", "text": "ppo/seed-3 reached KL 11.2, beyond the budget of 4.0."},
            {"level": "refused", "text": "dpo/seed-9 has other prompts than the rest: left out."},
        ],
        "scorers": [
            {"name": "gold", "title": "gold utility", "unit": "points"},
            {"name": "reward", "title": "reward-model score", "unit": "standard deviations"},
        ],
        "methods": [{"name": name, "title": name.upper()} for name in names],
        "baseline": {
            "name": "sft",
            "title": "SFT",
            "metrics": {"gold": 3.0, "reward": 0.0, "kl": 0.0, "words": 31.2, "finished": 0.98,
                        "distinct_2": 0.8},
        },
        "design": {
            "seeds": dict.fromkeys(names, seeds),
            "prompts": prompts,
            "confidence": 0.95,
            "budget": {"by": "kl", "limit": 4.0, "text": "4.0 nats from the first policy"},
        },
        "policies": policies,
        "contrasts": [
            {
                "a": a, "b": b, "at": at, "scorer": scorer, "difference": 0.21 - 0.1 * place,
                "low": 0.02 - 0.1 * place, "high": 0.40 - 0.1 * place, "p": 0.031,
                "p_adjusted": 0.062, "detectable": 0.26, "win_rate": 0.56, "win_rate_low": 0.51,
                "win_rate_high": 0.61, "lc_win_rate": 0.54 if scorer == "gold" else None,
            }
            for a, b in pairs
            for scorer in ("gold", "reward")
            for place, at in enumerate(("final", "matched"))
        ],
        "ranking": [
            {"name": name, "strength": 0.4 - 0.3 * i, "low": 0.2 - 0.3 * i, "high": 0.6 - 0.3 * i}
            for i, name in enumerate([*reversed(names), None])
        ],
        "frontier": [
            _line(policies, name, scorer) for name in names for scorer in ("gold", "reward")
        ],
        "training": [
            {
                "stage": f"{name}/seed-{seed}", "metric": metric, "step": step,
                "value": math.exp(-step / 30) + 0.05 * rng.random(),
            }
            for metric in ("loss", "KL", "entropy", "reward-model score")
            for name in names
            for seed in range(min(seeds, 3))
            for step in range(1, steps + 1)
        ],
        "subsets": [
            {
                "subset": subset,
                "prompts": prompts // 5,
                "cells": {
                    name: {"mean": (m := 3 + rng.random()), "low": m - 0.2, "high": m + 0.2}
                    for name in names
                },
            }
            for subset in SUBSETS
        ],
        "parts": [
            {"method": name, "part": part, "mean": rng.uniform(-0.5, 1.5)}
            for part in ("truth", "help", "manner", "length", "end")
            for name in (None, *names)
        ],
        "costs": [
            {
                "method": name, "seconds": 412.0, "memory": 1.9e9, "steps": 300,
                "tokens": 1.2e6, "responses": 9600,
            }
            for name in names
        ],
        "lineage": [
            {
                "stage": stage, "artifact": f"{stage.replace('/', '-')}-0123456789ab",
                "inputs": ["sft"] if "/" in stage else [], "seconds": 61.5, "memory": 8.1e8,
                "seed": 0,
            }
            for stage in ("base", "sft", "reward", *(f"{n}/seed-0" for n in names))
        ],
        "dropped": [
            {"stage": "sft", "reason": "the response is empty", "count": 3, "rows": "4, 17, 101"}
        ],
        "differences": [
            {"key": "ppo.loss.clip_low", "values": {"dpo": "–", "ppo": "0.2"}},
            {"key": "learning_rate", "values": {"dpo": "5e-6", "ppo": "1e-5"}},
        ],
        "settings": [
            {"key": f"section.key_{i}", "value": str(i), "documentation": "What this one does."}
            for i in range(40)
        ],
        "reward_model": {
            "accuracy": 0.712, "held_out_pairs": 400, "best_possible": 0.78,
            "audit": {
                "headline": "Fit to optimise against with care.", "kl": "Up to a KL of 3.0 nats.",
                "weaknesses": ["It pays for length."], "open_questions": [],
            },
        },
        "samples": _samples(rng, kept, prompts, level, words),
    }  # fmt: skip


def hostile() -> dict[str, Any]:
    """Return content in which every text means harm, and some numbers are none."""
    made = content(seeds=1, checkpoints=2, prompts=len(HOSTILE), steps=5)
    evil = HOSTILE[0]
    for name, answers in made["samples"]["responses"].items():
        for row, text in enumerate(HOSTILE):
            answer = answers[row] or {"scores": {}, "tokens": None, "finished": None}
            answers[row] = answer
            answer["text"] = text if name != "baseline" else text[::-1][:500]
    for prompt, text in zip(made["samples"]["prompts"], HOSTILE, strict=True):
        prompt["messages"] = [{"role": "user", "content": text[:300]}]
        prompt["subset"] = evil
    made["samples"]["responses"]["dpo/0/20"][0]["scores"]["gold"] = math.nan
    made["policies"][0]["metrics"]["gold"] = math.inf
    for key in ("title", "version"):
        made[key] = evil
    made["verdict"].append(evil)
    made["flags"] += [{"level": level, "text": evil} for level in ("warning", "note")]
    made["headline"] = {"so_far": True, "title": evil, "margin": [evil], "basis": evil,
                        "trust": [evil], "missing": [evil]}  # fmt: skip
    made["currency"] = evil
    made["run_settings"] = [{"key": evil, "values": {evil: evil, "b": evil}}]
    made["methods"][0]["title"] = f"DPO {evil}"
    made["scorers"][0]["title"] = evil
    made["settings"][0] = {"key": evil, "value": evil, "documentation": evil}
    made["dropped"][0]["reason"] = evil
    made["training"][0]["metric"] = made["training"][0]["stage"] = evil
    return made


def _policy(
    rng: random.Random, name: str, place: int, seed: int, step: int, last: int
) -> dict[str, Any]:
    kl = (1.2 + 1.1 * place) * step * rng.uniform(0.85, 1.15)
    d = math.sqrt(kl)
    gold = 3.0 + d * (0.9 - (0.12 + 0.2 * place) * d) + rng.gauss(0, 0.08)
    rate = 1 / (1 + math.exp(-(gold - 3)))
    return {
        "id": f"{name}/{seed}/{10 * step}", "method": name, "seed": str(seed),
        "checkpoint": 10 * step, "progress": step / last, "final": step == last,
        "matched": step == max(1, last // 2),
        "metrics": {
            "kl": kl, "kl_se": 0.1, "gold": gold, "reward": 0.8 * d + rng.gauss(0, 0.05),
            "words": 30 + 2 * kl, "finished": 0.97, "gold_win_rate": rate,
            "gold_win_rate_low": rate - 0.05, "gold_win_rate_high": rate + 0.05,
            "distinct_2": 0.7, "self_bleu": 0.3,
        },
        "costs": {"responses": 1600 * step, "tokens": 2e5 * step, "steps": 50 * step,
                  "seconds": 70.0 * step, "memory": 1.9e9},
    }  # fmt: skip


def _line(policies: list[dict[str, Any]], name: str, scorer: str) -> dict[str, Any]:
    steps: dict[int, list[dict[str, Any]]] = {}
    for row in policies:
        if row["method"] == name:
            steps.setdefault(row["checkpoint"], []).append(row["metrics"])
    points = []
    for rows in steps.values():
        mean = sum(row[scorer] for row in rows) / len(rows)
        points.append(
            {
                "kl": sum(row["kl"] for row in rows) / len(rows), "mean": mean,
                "low": mean - 0.15 if len(rows) > 1 else None,
                "high": mean + 0.15 if len(rows) > 1 else None, "seeds": len(rows),
            }
        )  # fmt: skip
    beta = 0.32 if name == "ppo" else 0.12
    fit = {
        "alpha": 0.9, "beta": beta, "r_squared": 0.93, "peak_kl": (0.45 / beta) ** 2, "form": "bon"
    }  # fmt: skip
    return {
        "method": name, "scorer": scorer, "points": points, "area": 3.4, "area_low": 3.2,
        "area_high": 3.6, "area_to": 4.0, "fit": fit if scorer == "gold" else None,
    }  # fmt: skip


def _samples(
    rng: random.Random, ids: list[str], prompts: int, level: dict[str, float], words: int = 60
) -> dict[str, Any]:
    asked = [
        {
            "id": f"p{i:05d}",
            "subset": SUBSETS[i % len(SUBSETS)],
            "messages": [
                {"role": "system", "content": "You help customers of a shop."},
                {"role": "user", "content": f"Question {i}: {_said(rng, 14)}?"},
            ],
        }
        for i in range(prompts)
    ]
    first = [_said(rng, words) for _ in range(prompts)]
    responses: dict[str, list[dict[str, Any] | None]] = {}
    for name in ids:
        rows: list[dict[str, Any] | None] = []
        for i in range(prompts):
            text = first[i] if name == ids[0] else _changed(rng, first[i])
            gold = rng.gauss(level.get(name, 3.0), 1.0)
            rows.append(
                {
                    "text": text,
                    "scores": {"gold": gold, "reward": rng.gauss(0, 1)},
                    "tokens": len(text) // 4,
                    "finished": rng.random() > 0.03,
                }
            )
        if len(rows) > 6 and name != ids[0]:
            rows[5] = None
        responses[name] = rows
    return {"policies": ids, "prompts": asked, "responses": responses}


def _said(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=max(1, round(rng.gauss(words, words / 6)))))


def _changed(rng: random.Random, text: str) -> str:
    """Return the text as another policy would have put it: a fifth of its words changed."""
    return " ".join(rng.choice(WORDS) if rng.random() < 0.2 else word for word in text.split())
