"""What the ``run.json`` of a run holds, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbline.errors import ArtifactError, brief
from plumbline.runs import old_runs
from plumbline.runs.artifacts import read_json

RUN_FILE = "run.json"
#: What a ``run.json`` that says little is taken to say.
_UNKNOWN = {
    "recipe": "", "status": "interrupted", "started": "", "seconds": None, "stage": None,
    "finished_before": None,
}  # fmt: skip


def read_run_file(file: Path) -> dict[str, Any]:
    """Return what a ``run.json`` holds; raise `ArtifactError` where it is damaged."""
    try:
        state = read_json(file)
        _check_stages(state)
        state = _UNKNOWN | old_runs.current_state(state)
        _check_state(state)
    except ValueError as error:
        raise ArtifactError(
            f"{file} is damaged ({error}). The command that made the "
            "run writes it again, and what the run made is in the store as before."
        ) from None
    return state


def _check_stages(state: Any) -> None:
    """Raise `ValueError` where what a ``run.json`` holds is not a run with stages."""
    stages = state.get("stages") if isinstance(state, Mapping) else None
    if not isinstance(stages, Mapping) or not all(isinstance(e, Mapping) for e in stages.values()):
        raise ValueError("it holds no stages")


def _check_state(state: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a ``run.json`` holds values of other kinds."""
    for key, kinds in (
        ("recipe", str),
        ("status", str),
        ("started", str),
        ("seconds", float | int | None),
        ("stage", str | None),
        ("finished_before", Mapping | None),
    ):
        if not isinstance(state[key], kinds):
            raise ValueError(f"{key} is {brief(state[key])}")
    before = state["finished_before"] or {"stages": {}, "settings": {}}
    _check_stages(before)
    if not isinstance(before.get("settings"), Mapping):
        raise ValueError("finished_before holds no settings")
    for name, entry in [*state["stages"].items(), *before["stages"].items()]:
        artifact = entry.get("artifact")
        if not isinstance(artifact, str) or Path(artifact).name != artifact:
            raise ValueError(f"the artefact of {name} is {brief(artifact)}")
