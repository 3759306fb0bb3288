"""What a person sees while a stage runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from plumbline.runs.progress import live_bars


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
