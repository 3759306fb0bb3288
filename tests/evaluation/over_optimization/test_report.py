"""Over-optimization: planted curves are found again, and noise is no drop."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from evaluation.over_optimization import curves as analysis
from evaluation.over_optimization.report import report_over_optimization
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.statistics import BestOf

KLS = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
PROMPTS = 40


class TrainingRun(Artifact):
    """A folder with the looks of a training, as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def manifest(self):
        return type("Manifest", (), {"seconds": 60.0})


def policy(folder, kls, golds, proxies, seed=0):
    """Write a training whose looks have these means; prompts differ by a fixed amount each."""
    (folder / "evaluations").mkdir(parents=True)
    spread = np.random.default_rng(seed).normal(size=PROMPTS)
    spread -= spread.mean()
    lines = [{"step": 1, "score": 0.3}]  # a training line is no look
    for step, (kl, gold, proxy) in enumerate(zip(kls, golds, proxies, strict=True)):
        lines.append(
            {"step": step, "eval/kl": kl, "eval/gold": gold, "eval/reward": proxy, "eval/words": 9}
        )
        ids = [f"{n:03d}" for n in range(PROMPTS)]
        table = pd.DataFrame(
            {"prompt_id": ids, "gold": gold + spread, "reward": proxy + spread, "other": 0.0}
        )
        # The order of rows is nobody's promise.
        table.sample(frac=1, random_state=step).to_parquet(
            folder / "evaluations" / f"step-{step}.parquet"
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return TrainingRun(folder)


def gao(kl, alpha, beta):
    d = math.sqrt(kl)
    return d * (alpha - beta * math.log(d)) if d else 0.0


@pytest.fixture
def planted(tmp_path):
    """Three seeds whose gold follows the law with alpha 0.6 and beta 0.9, and proxy its root KL."""
    return [
        policy(
            tmp_path / f"seed-{seed}",
            KLS,
            [3 + gao(kl, 0.6, 0.9) + 0.01 * seed * bool(kl) for kl in KLS],
            [math.sqrt(kl) - 1 for kl in KLS],
            seed,
        )
        for seed in range(3)
    ]


def curves_of(policies):
    return [analysis.optimization_curve(p, "gold", "reward") for p in policies]


def test_a_course_is_read_from_the_looks_and_prompts_are_brought_in_order(planted):
    course = curves_of(planted)[1]
    assert course.steps == list(range(7))
    assert course.kl.tolist() == KLS
    assert course.gain("gold")[2] == pytest.approx(gao(1.0, 0.6, 0.9) + 0.01)
    assert course.gold_by_prompt.shape == (7, PROMPTS)
    gains = course.gold_by_prompt[4] - course.gold_by_prompt[0]
    assert np.ptp(gains) == pytest.approx(0, abs=1e-9)  # paired, all prompts gain the same


def test_too_few_looks_are_refused(tmp_path):
    few = policy(tmp_path / "few", KLS[:2], [0, 1], [0, 1])
    with pytest.raises(DataError, match="evaluated 2 time"):
        analysis.optimization_curve(few, "gold", "reward")


def test_the_planted_law_is_found_again(planted):
    found = analysis.fit_gain(curves_of(planted), "gold")
    assert found["alpha"] == pytest.approx(0.6, abs=0.02)
    assert found["beta"] == pytest.approx(0.9, abs=0.02)
    assert found["r_squared"] > 0.99
    assert found["peak_kl"] == pytest.approx(math.exp(2 * (0.6 / 0.9 - 1)), rel=0.05)
    line = analysis.fitted_curve(found, 16.0)
    assert line[-1]["root_kl"] == 4
    assert line[-1]["gold"] == pytest.approx(gao(16.0, 0.6, 0.9), abs=0.05)


def test_without_enough_looks_away_from_the_start_there_is_no_fit(tmp_path):
    near = [policy(tmp_path / "n", [0.0, -0.1, 0.2], [3, 3, 3], [0, 1, 2])]
    found = analysis.fit_gain(curves_of(near), "gold")
    assert found == {
        "alpha": None, "beta": None, "r_squared": None, "peak_kl": None, "form": "rl"
    }  # fmt: skip
    assert analysis.fitted_curve(found, 0.2) == []


def test_a_planted_fall_is_told(planted):
    found = analysis.drop_after_peak(curves_of(planted))
    top = max(KLS, key=lambda kl: gao(kl, 0.6, 0.9))
    assert found["peak_kl"] == pytest.approx(top)
    last = gao(16.0, 0.6, 0.9)
    assert found["from_peak"]["gold"]["mean"] == pytest.approx(last - gao(top, 0.6, 0.9))
    assert found["from_peak"]["proxy"]["mean"] == pytest.approx(4 - math.sqrt(top))
    assert found["from_start"]["gold"]["mean"] == pytest.approx(last + 0.01)  # the mean over seeds
    assert found["from_start"]["proxy"]["mean"] == pytest.approx(4)
    assert found["over_optimized"] is True
    sentence = analysis.verdict("one", found)
    assert sentence.startswith(
        "one: over-optimized. From KL 0.50 to KL 16.00 nats, gold changed by -"
    )


def test_a_fall_below_the_start_is_told_where_the_peaks_differ_too_much(tmp_path):
    """Seeds that peak at once and seeds that peak late: no common peak, but all end far below."""
    late = [
        policy(tmp_path / "a", KLS, [3, 3, 3, 3, 3, 3.2, 1], [0, 1, 2, 3, 4, 9, 5], 0),
        policy(tmp_path / "b", KLS, [3, 2, 1, 1, 1, 1.0, 1], [0, 1, 2, 3, 4, 5, 5], 1),
        policy(tmp_path / "c", KLS, [3, 3, 2, 2, 2, 1.0, 1], [0, 1, 2, 3, 4, 4, 5], 2),
    ]
    found = analysis.drop_after_peak(curves_of(late))
    assert found["over_optimized"] is True
    assert found["from_start"]["gold"] == pytest.approx({"mean": -2, "low": -2, "high": -2})


def test_a_score_that_only_rises_is_not_called_over_optimized(tmp_path):
    rising = [
        policy(tmp_path / str(s), KLS, [kl + 0.1 * s for kl in KLS], KLS, s) for s in range(3)
    ]
    found = analysis.drop_after_peak(curves_of(rising))
    assert found["over_optimized"] is False
    assert "does not show" in analysis.verdict("one", found)


def curve_with(golds) -> analysis.OptimizationCurve:
    values = np.asarray(golds, dtype=float)
    if values.ndim == 1:
        values = np.tile(values[:, None], (1, 5))
    looks = len(values)
    means = values.mean(axis=1)
    steps = np.arange(looks, dtype=float)
    rising = np.tile(steps[:, None], (1, values.shape[1]))
    return analysis.OptimizationCurve(
        list(range(looks)), steps, means, steps, means, values, rising
    )


def test_each_seed_s_peak_is_where_the_others_have_it():
    three = [curve_with(g) for g in ([0, 5, 1, 1], [0, 1, 2, 1], [0, 1, 3, 1])]
    # Others' means: (0, 1, 2.5, 1), (0, 3, 2, 1), (0, 3, 1.5, 1).
    assert analysis.peak_checkpoints(three) == [2, 1, 1]
    assert analysis.peak_checkpoints(three[:1]) == [1]
    assert "There is one seed" in analysis.verdict("one", analysis.drop_after_peak(three[:1]))


def test_noise_is_no_fall():
    """Where nothing happens, the mean fall is nought; a peak found in its own numbers has one."""
    random = np.random.default_rng(0)
    falls, own, called = [], [], 0
    for _ in range(150):
        seeds = [curve_with(random.normal(size=(8, 30))) for _ in range(3)]
        found = analysis.drop_after_peak(seeds)
        falls.append(found["from_peak"]["gold"]["mean"])
        called += found["over_optimized"]
        own.append(np.mean([c.gold[-1] - c.gold.max() for c in seeds]))
    error = np.std(falls) / math.sqrt(len(falls))
    assert abs(np.mean(falls)) < 3 * error
    assert np.mean(own) < -5 * error
    assert called <= 0.08 * 150


def test_bands_are_means_at_equal_kl_and_narrow_to_those_who_came_so_far():
    def straight(slope, furthest):
        roots = np.linspace(0, math.sqrt(furthest), 5)
        return curve_with(slope * roots)._replace(kl=roots**2)

    rows = analysis.mean_curve([straight(1.0, 4.0), straight(3.0, 4.0), straight(2.0, 9.0)])
    assert rows[0]["gold"] == 0
    for row in rows:
        assert row["gold"] == pytest.approx(2 * row["root_kl"])
        assert row["gold_seeds"] == (3 if row["root_kl"] <= 2 else 1)
        assert ("gold_low" in row) == (row["root_kl"] <= 2)
    # Student's t with 2 degrees: 4.303; the deviation of 1, 2 and 3 is 1, times the root KL.
    row = next(row for row in rows if 1 < row["root_kl"] <= 2)
    assert row["gold"] - row["gold_low"] == pytest.approx(
        4.303 * row["root_kl"] / math.sqrt(3), rel=1e-3
    )
    assert rows[-1]["root_kl"] == pytest.approx(3)


def test_best_of_n_has_its_own_law():
    kl = np.array([0.0, 0.2, 0.6, 1.2, 1.9])
    d = np.sqrt(kl)
    curves = [BestOf([1, 2, 4, 8, 16], kl, d * 2, 5 + d * (0.8 - 0.5 * d)) for _ in range(2)]
    found = analysis.best_of_n_summary(curves)
    assert found["fit"]["alpha"] == pytest.approx(0.8)
    assert found["fit"]["beta"] == pytest.approx(0.5)
    assert found["fit"]["r_squared"] == pytest.approx(1)
    assert found["points"][2] | {"n": 4} == found["points"][2]
    assert found["points"][0]["gold"] == 0


def test_the_report_is_whole(planted, tmp_path, stage):
    answers = tmp_path / "answers"
    answers.mkdir()
    random = np.random.default_rng(1)
    pd.DataFrame(
        {"prompt_id": np.repeat(["a", "b"], 8), "response": "x", "gold": random.normal(size=16),
         "one/0": random.normal(size=16)}
    ).to_parquet(answers / "responses.parquet")  # fmt: skip
    reward_model = type(
        "Model", (), {"metrics": {"pairs": 31.0, "accuracy": 0.6, "held_out_pairs": 9}}
    )
    reward = "one | <b>model</b>"
    figures = report_over_optimization(
        stage,
        title="Over-optimization",
        policies={reward: {str(n): p for n, p in enumerate(planted)}},
        proxies={reward: "reward"},
        reward_models={"seed 0": reward_model},
        responses=Artifact(answers),
        rankings={reward: {"0": "one/0"}},
    )
    assert figures[f"{reward}_drop"] < 0
    for name in ("gold", "proxy", "words", "best-of-n"):
        assert (stage.folder / "plots" / f"{name}.svg").read_text().startswith("<svg")
    page = (stage.folder / "report.html").read_text()
    body = page[page.index("<body") : page.index("<script>")]
    assert ": over-optimized. From KL" in body
    assert "<b>model</b>" not in body
    markdown = (stage.folder / "report.md").read_text()
    assert "one \\| <b>model</b>" in markdown
    summary = json.loads((stage.folder / "summary.json").read_text())
    assert summary["rewards"][reward]["fit"]["gold"]["beta"] == pytest.approx(0.9, abs=0.02)
    assert len(summary["rewards"][reward]["checkpoints"]) == 21
