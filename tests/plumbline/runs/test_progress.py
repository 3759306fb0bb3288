"""What a person sees while a stage runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from plumbline.config import Config
from plumbline.errors import DataError
from plumbline.runs.artifacts import write_json
from plumbline.runs.progress import Reporter, live_bars
from plumbline.runs.run import Run
from plumbline.runs.stage import Stage, stage


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_a_narrow_terminal_shows_how_far_a_stage_has_come(width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bars = live_bars(console)
    metrics = "loss 0.65  grad_norm 0.193  rewards/accuracies 0.713  tokens_per_second 2.4e+03"
    task = bars.add_task("ppo/seed-0: proximal policy optimisation", total=1800, metrics=metrics)
    bars.update(task, completed=334)
    with console.capture() as shown:
        console.print(bars.get_renderable())
    (line,) = shown.get().splitlines()
    assert "334/1800" in line and "left -:--:--" in line and len(line) <= width
    assert ("━" in line) == (width > 100) and (metrics in line) == (width == 200)


@stage("broken")
def break_down(stage: Stage, *, keeps: bool, seed: int) -> dict[str, float]:
    """Stop half-way, with or without a checkpoint."""
    if keeps:
        stage.checkpoints.save(1, {"step": 1})
    raise DataError("Stopped here.")


@pytest.mark.parametrize(
    ("keeps", "said"),
    [(True, "resumes where it was stopped"), (False, "begins again: it had kept nothing yet")],
)
def test_a_stage_that_was_stopped_says_whether_it_resumes(tmp_path, keeps, said):
    text = io.StringIO()
    run = Run(tmp_path, "r", "recipe", Config(), Reporter(Console(file=text)), isolate=False)
    for attempt in range(2):
        with pytest.raises(DataError, match="Stopped here"):
            run.make("one", break_down, keeps=keeps, seed=0)
        assert (said in text.getvalue()) == (attempt == 1)
        (partial,) = (tmp_path / "store" / ".partial").glob("broken-*/")
        write_json(partial / "clock.json", {"seconds": 2.0})
