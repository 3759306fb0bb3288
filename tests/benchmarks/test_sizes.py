"""The benchmarks of a GPU, tried on tiny models without one: they end, and figures are real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def last_line(warm_start):
    """Return what runs a benchmark and reads the last line that it prints."""

    def run(name, *options, check=True):
        script = ROOT / "benchmarks" / name
        ran = warm_start.run("--device", "cpu", *options, script=script, PYTHONPATH=str(ROOT))
        assert not check or ran.returncode == 0, ran.stderr[-2000:]
        return json.loads(ran.stdout.splitlines()[-1])

    return run


def test_rounds_of_ppo(last_line):
    (figures,) = last_line(
        "ppo.py", "--models", "tiny/500/lora", "--rounds", "2", "--scale", "0.02"
    ).values()
    parts = [figures[part] for part in ("sampling", "scoring", "learning")]
    assert min(parts) > 0
    assert figures["seconds"] == pytest.approx(sum(parts))
    # 64 responses of 5 tokens.
    assert figures["sampling_tokens_per_second"] == pytest.approx(320 / figures["sampling"])
    assert figures["generation"] > 0
    assert 0 < figures["learning_share_of_peak"] < 1
    # Without TRL beside it, and no constant for a tiny model, nothing is said of it.
    assert figures["total"] is None
    assert figures["total_against"] is None


def test_a_model_that_does_not_exist_has_failed_and_says_so(last_line):
    figures = last_line("ppo.py", "--models", "huge/500/full", check=False)
    assert figures == {"huge/500/full": {"failed": "no round was finished"}}


def test_fine_tuning(last_line):
    result = last_line(
        "sft.py", "--models", "tiny/500/full", "--steps", "2", "--rows", "4", "--longest", "140"
    )
    sides = result["tiny/500/full"]
    for side in ("ours", "trl"):
        assert sides[side]["tokens_per_second"] > 0
        assert 0 < sides[side]["share_of_peak"] < 1
        # ln 500 = 6.2: random weights predict nothing.
        assert sides[side]["loss"] == pytest.approx(6.2, abs=0.3)
    assert sides["ours"]["loss"] == pytest.approx(sides["trl"]["loss"], abs=0.01)
    speed = sides["ours"]["tokens_per_second"] / sides["trl"]["tokens_per_second"]
    assert sides["speed"] == pytest.approx(speed)
