"""The page on a recipe of your own: its test passes, and the command line runs it by its path."""

from __future__ import annotations

import json
import re

from plumbline.commands.recipe_book import execute, find
from plumbline.runs.progress import Reporter
from plumbline.runs.run_file import RUN_FILE


def test_the_recipe_runs_and_its_own_test_passes(worked_example, tmp_path):
    example = worked_example("recipe")
    (example.folder / "configs").mkdir()
    (settings,) = re.findall(r"```yaml\n(.*?)```", example.text, re.DOTALL)
    (example.folder / "configs" / "small.yaml").write_text(settings, encoding="utf-8")
    assert example.run_its_test(tmp_path=tmp_path / "home") == 1

    # By its path, with one more rank: everything else is there already.
    recipe = find("lora_ranks.py")
    assert recipe.summary.startswith("What the rank of an adapter costs")
    assert list(recipe.configs) == ["small"]
    run = execute(recipe, "small", ["ranks=[1, 2, 4]"], tmp_path / "home", Reporter(quiet=True))
    record = json.loads((run.folder / RUN_FILE).read_text(encoding="utf-8"))
    assert set(record["headline"]) == {"loss_rank_1", "loss_rank_2", "loss_rank_4"}
    reused = {name for name, stage in record["stages"].items() if stage["reused"]}
    assert reused == {"base", "demonstrations", "sft/rank-1", "sft/rank-4"}
