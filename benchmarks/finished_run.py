"""The finished run that a benchmark starts from: options that name it, and its artefacts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from plumbline.runs.artifacts import Artifact
from plumbline.runs.find import find_artifact

#: Options that do not change the result of a seed.
_ELSEWHERE = ("home", "run", "seeds")


def parser_of(documentation: str | None) -> argparse.ArgumentParser:
    """Return a parser by a benchmark's docstring, which knows the run and the number of seeds."""
    parser = argparse.ArgumentParser(description=(documentation or "").split("\n", 1)[0])
    parser.add_argument("--home", type=Path, default=Path("runs"), help="the home of the run")
    parser.add_argument("--run", default="dpo_vs_ppo-quickstart", help="its name")
    parser.add_argument("--seeds", type=int, default=5)
    return parser


def artifacts_of(options: argparse.Namespace, *stages: str) -> list[Artifact]:
    """Return what stages of the run made."""
    artifacts = []
    for name in stages:
        artifact = find_artifact(options.home, f"{options.run}:{name}")
        assert artifact is not None, f"the run has no stage {name}"
        artifacts.append(artifact)
    return artifacts


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that decide the result of a seed."""
    return {name: value for name, value in vars(options).items() if name not in _ELSEWHERE}
