"""An audit of a reward model, as a stage: read, score, measure, decide, write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.data.labels import read_labels
from plumbline.data.records import Message, as_json_lines, assistant, prompt_id
from plumbline.data.sources import Source
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.hooks import Scorer, problem_with
from plumbline.runs.artifacts import Artifact, write_json
from plumbline.runs.stage import Stage, stage
from reward.audit import page
from reward.audit.adversarial import SuffixSearch, search_suffixes, vocabulary_of
from reward.audit.config import AuditConfig
from reward.audit.data import AuditData, AuditPair, read_audit_data
from reward.audit.label_problems import worth_labeling
from reward.audit.measure import drawn, measure_pairs, sure_of_labels
from reward.audit.measured import Measured
from reward.audit.optimization import over_optimization
from reward.audit.perturbations import PERTURBATIONS
from reward.audit.reward_bench import Row2, score_2
from reward.audit.robustness import measure_reactions
from reward.audit.samples import read_samples
from reward.audit.verdict import decide
from reward.scorers.cached import CachedScorer

FIGURES, PAGE = "audit.json", "audit.html"
TO_LABEL, SUSPICIOUS = "to_label.jsonl", "suspicious.jsonl"
_CHUNK = 256
#: With fewer pairs, no response is changed.
_FEWEST_TO_PROBE = 20


@stage("reward-audit")
def audit_reward_model(
    stage: Stage,
    *,
    config: AuditConfig,
    scorer: Scorer,
    name: str,
    data: Sequence[Artifact | Source],
    labels: Artifact | None = None,
    samples: Artifact | Source | None = None,
    proxy: str | None = None,
    gold: str = "gold",
    data_seed: int = 0,
) -> Mapping[str, float | None]:
    """Audit a reward model on pairs; write figures, a page and the pairs to label next.

    ``labels`` are labels on the pairs of ``data``. ``samples`` hold many responses to each prompt
    with their ``gold`` score; ``proxy`` is the column of the model's own score, else they are
    scored here. ``name`` is what the page calls the model.
    """
    # 1. Read the pairs, and leave out and count what cannot be scored.
    pairs_in = read_audit_data(
        data, config.data, () if labels is None else read_labels(labels.path)
    )
    pairs = drawn(pairs_in.pairs, config.max_pairs, data_seed)
    scoring = _Scoring(stage, scorer)
    pairs = _that_can_be_scored(pairs, scorer, pairs_in.dropped)

    # 2. Score both responses of every pair.
    chosen = scoring.score([p.prompt for p in pairs], [p.chosen for p in pairs], "chosen")
    rejected = scoring.score([p.prompt for p in pairs], [p.rejected for p in pairs], "rejected")
    pairs, chosen, rejected = _with_finite_scores(pairs, chosen, rejected, pairs_in.dropped)

    # 3. Measure what the scores of the pairs say.
    temperature = float(getattr(getattr(scorer, "calibration", None), "temperature", None) or 1.0)
    measured = Measured(0, 0, 1.0, 0)
    if pairs:
        measured = measure_pairs(pairs, chosen, rejected, config, temperature, data_seed)
    if pairs_in.bench:
        measured.benchmarks.append(score_2(_bench_scores(pairs_in, scoring)))

    # 4. Change responses, search suffixes, and optimise against the model.
    decided = [n for n, pair in enumerate(pairs) if pair.is_decided]
    if len(decided) >= _FEWEST_TO_PROBE:
        _probe(stage, measured, config, scoring, pairs, chosen, rejected, decided, data_seed)
    if samples is not None:
        _optimize(measured, scoring, samples, proxy, gold, data_seed)

    # 5. Decide, and write everything.
    measured.shortened = int(getattr(scorer, "shortened", 0))
    measured.dropped, measured.notes = pairs_in.dropped.reasons(), pairs_in.notes
    stage.report_dropped(pairs_in.dropped)
    verdict = decide(measured)
    lists = _pair_lists(measured, config, pairs, chosen, rejected, decided)
    for file, rows_of_file in lists.items():
        (stage.folder / file).write_text(as_json_lines(rows_of_file), encoding="utf-8")
    parts = {"verdict": asdict(verdict), "measured": plain(asdict(measured))}
    write_json(stage.folder / FIGURES, {"model": name} | parts)
    text = page.render(name, measured, verdict, lists[SUSPICIOUS], lists[TO_LABEL])
    (stage.folder / PAGE).write_text(text, encoding="utf-8")
    return _headline(measured, len(verdict.weaknesses))


class _Scoring:
    """Scores texts in chunks; a killed audit keeps what it scored."""

    def __init__(self, stage: Stage, scorer: Scorer) -> None:
        self._stage = stage
        self._scorer = CachedScorer(scorer, "audit", file=stage.shards / "scores.sqlite")

    def score(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str], what: str
    ) -> list[float]:
        """Return the score of each response, with a bar that says ``what`` is scored."""
        scores: list[float] = []
        with self._stage.bar(what, len(responses)) as bar:
            for start in range(0, len(responses), _CHUNK):
                part = slice(start, start + _CHUNK)
                scores += self._scorer.score(prompts[part], responses[part])
                bar.update(len(scores))
        return scores

    def quietly(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[float]:
        """Return the score of each response, without a bar."""
        return self._scorer.score(prompts, responses)


def _that_can_be_scored(
    pairs: Sequence[AuditPair], scorer: Scorer, dropped: Dropped
) -> list[AuditPair]:
    problems = {}
    for pair in pairs:
        key = prompt_id(pair.prompt)
        if key not in problems:
            problems[key] = problem_with(scorer, pair.prompt)
    kept = []
    for pair in pairs:
        problem = problems[prompt_id(pair.prompt)]
        if problem is None:
            kept.append(pair)
        else:
            dropped.add(pair.origin, pair.row, problem, pair.pair_id)
    return kept


def _with_finite_scores(
    pairs: Sequence[AuditPair], chosen: Sequence[float], rejected: Sequence[float], dropped: Dropped
) -> tuple[list[AuditPair], list[float], list[float]]:
    kept = []
    for pair, better, worse in zip(pairs, chosen, rejected, strict=True):
        if math.isfinite(better) and math.isfinite(worse):
            kept.append((pair, better, worse))
        else:
            dropped.add(pair.origin, pair.row, "has no finite score", pair.pair_id)
    if pairs and not kept:
        raise DataError(
            f"The scorer gives no finite score to any of {len(pairs)} pairs. It has diverged, or "
            "its files are damaged: train it again."
        )
    return [k[0] for k in kept], [k[1] for k in kept], [k[2] for k in kept]


def _bench_scores(data: AuditData, scoring: _Scoring) -> list[Row2]:
    prompts = [row.prompt for row in data.bench for _ in row.responses]
    scores = scoring.score(prompts, [r for row in data.bench for r in row.responses], "benchmark")
    rows, start = [], 0
    for row in data.bench:
        own = scores[start : start + len(row.responses)]
        start += len(row.responses)
        if all(map(math.isfinite, own)):
            rows.append(Row2(row.id, row.subset, own, row.right))
        else:
            data.dropped.add(row.origin, row.row, "has no finite score", row.id)
    return rows


def _probe(
    stage: Stage,
    measured: Measured,
    config: AuditConfig,
    scoring: _Scoring,
    pairs: Sequence[AuditPair],
    chosen: Sequence[float],
    rejected: Sequence[float],
    decided: Sequence[int],
    seed: int,
) -> None:
    """Change responses, and search suffixes."""
    some = decided[: config.changed_responses]
    prompts = [pairs[n].prompt for n in some]
    measured.reactions = measure_reactions(
        scoring.quietly, list(PERTURBATIONS.values()), prompts, [pairs[n].chosen for n in some],
        [chosen[n] for n in some], [rejected[n] for n in some], measured.std, seed,
    )  # fmt: skip
    if not config.adversarial:
        return
    search = SuffixSearch(
        config.suffix_words, config.suffix_draws, candidates=config.suffix_candidates
    )
    tried = search.random_suffixes + search.words * search.candidates
    with stage.bar("suffixes", tried) as bar:
        measured.suffixes = search_suffixes(
            scoring.quietly, prompts, [pairs[n].rejected for n in some],
            [rejected[n] for n in some], [chosen[n] for n in some],
            vocabulary_of([pairs[n].chosen for n in decided]), measured.std, seed, search,
            bar.advance,
        )  # fmt: skip


def _optimize(
    measured: Measured,
    scoring: _Scoring,
    samples: Artifact | Source,
    proxy: str | None,
    gold: str,
    seed: int,
) -> None:
    """Measure best of n by the model, and by every other score of the samples."""
    sampled = read_samples(samples, gold)
    if proxy is None:
        flat = scoring.score(sampled.prompts, sampled.responses, "best of n")
        scores = np.array(flat).reshape(sampled.gold.shape)
    elif proxy in sampled.others:
        scores = sampled.others[proxy]
    else:
        raise DataError(
            f"The samples have no column {proxy!r} of scores; they have "
            f"{', '.join(sampled.others) or 'none'}."
        )
    measured.optimization = over_optimization(scores, sampled.gold, seed)
    measured.other_optimizations = {
        name: over_optimization(other, sampled.gold, seed)
        for name, other in sampled.others.items()
        if name != proxy
    }


def _pair_lists(
    measured: Measured,
    config: AuditConfig,
    pairs: Sequence[AuditPair],
    chosen: Sequence[float],
    rejected: Sequence[float],
    decided: Sequence[int],
) -> dict[str, list[dict[str, Any]]]:
    """Return the pairs whose labels look wrong, and those most worth labelling, as rows."""
    if not decided or measured.suspicious is None:
        return {SUSPICIOUS: [], TO_LABEL: []}
    margins = np.array([chosen[n] - rejected[n] for n in decided])
    sure = sure_of_labels(measured, margins)
    wrong = set(measured.suspicious.numbers)
    next_ones, worth = worth_labeling(
        sure, [n in wrong for n in range(len(decided))], config.to_label
    )

    def row(number: int, *, labeled: bool) -> dict[str, Any]:
        pair = pairs[decided[number]]
        sides = ("chosen", "rejected") if labeled else ("a", "b")
        texts = (pair.chosen, pair.rejected)
        if not labeled and number % 2:  # so that the place says nothing of the label
            texts = texts[::-1]
        return {
            "pair_id": pair.pair_id,
            "prompt": pair.prompt,
            **{side: [assistant(text)] for side, text in zip(sides, texts, strict=True)},
            **({"probability_of_label": float(sure[number]), "origin": pair.origin, "row": pair.row}
               if labeled else {"worth": float(worth[number])}),
        }  # fmt: skip

    return {
        SUSPICIOUS: [row(number, labeled=True) for number in measured.suspicious.numbers],
        TO_LABEL: [row(number, labeled=False) for number in next_ones],
    }


def _headline(measured: Measured, weaknesses: int) -> dict[str, float | None]:
    accuracy, calibration = measured.accuracy, measured.calibration
    return {
        "accuracy": None if accuracy is None else accuracy.value,
        "pairs": float(measured.pairs),
        "ece": None if calibration is None else calibration.before.ece,
        "temperature": None if calibration is None else calibration.temperature,
        "weaknesses": float(weaknesses),
        "dropped_rows": float(sum(measured.dropped.values())),
        **{
            f"{bench.benchmark.lower().replace(' ', '_')}": bench.score
            for bench in measured.benchmarks
        },
        "safe_kl": None if measured.optimization is None else measured.optimization.safe_kl,
    }


def plain(value: Any) -> Any:
    """Return a value as JSON has it: no infinity, and tuples with names as objects."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, np.generic):
        return value.item()
    return value


def figures_in(folder: Path) -> dict[str, Any]:
    """Read what an audit wrote."""
    from plumbline.runs.artifacts import read_json

    content: dict[str, Any] = read_json(folder / FIGURES)
    return content
