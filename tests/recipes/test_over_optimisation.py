"""The over-optimization recipe, small: every reward and seed is trained, evaluated and shown."""

from __future__ import annotations

import json

import pytest

from plumbline.commands.recipe_book import execute, find
from plumbline.runs.progress import Reporter
from recipes import over_optimization
from reward.ensemble import COMBINATIONS

MORE = """\
ensembles: [minimum, uncertainty]
uncertainty_weight: 2.0
best_of: {responses: 4, prompts: 6}
pool: {workers: 2}
"""


def small(text: str) -> str:
    kept = text[: text.index("\ndpo:\n")] + text[text.index("\nppo:\n") :]
    kept = kept.replace("# recipe: dpo_vs_ppo", "# recipe: over_optimization")
    return kept.replace("kl: {target: 2.0}", "kl: {coefficient: 0}") + MORE


@pytest.mark.slow
def test_every_way_is_pressed_on_and_shown(small_config, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(small(small_config.read_text()))
    run = execute(
        find("over_optimization"), str(config), [], tmp_path / "home", Reporter(quiet=True), "o"
    )
    summary = json.loads((run.folder / "summary.json").read_text())
    titles = [
        over_optimization.ONE,
        *(COMBINATIONS[h].title for h in ("minimum", "uncertainty")),
    ]
    assert list(summary["rewards"]) == list(summary["best_of_n"]) == titles
    stages = run.stages
    models = {seed: stages[f"reward/seed-{seed}"].id for seed in (0, 1)}
    assert models[0] != models[1]
    for title in titles:
        for seed in (0, 1):
            inputs = set(stages[f"{title}/seed-{seed}"].manifest.inputs.values())
            used = {seed for seed, model in models.items() if model in inputs}
            assert used == ({seed} if title == over_optimization.ONE else {0, 1})
        assert len(summary["rewards"][title]["checkpoints"]) == 2 * 3
    first = [summary["rewards"][title]["start"]["gold"] for title in titles]
    assert first == pytest.approx([first[0]] * 3)  # one start for all
    assert [found["models"] for found in summary["best_of_n"].values()] == [2, 1, 1]
    assert (run.folder / "report.html").exists()


def test_without_a_gold_utility_there_is_nothing_to_see():
    with pytest.raises(ValueError, match="leave files out"):
        over_optimization.OverOptimizationConfig.model_validate(
            {"files": {"demonstrations": "a.json", "preferences": "b.json"}}
        )
