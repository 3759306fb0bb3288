"""Artefacts by the names that a user gives them."""

from __future__ import annotations

from pathlib import Path

from plumbline.errors import ArtifactError
from plumbline.runs.artifacts import MANIFEST, Artifact, Store, is_artifact
from plumbline.runs.run import RunRecord
from plumbline.runs.run_file import RUN_FILE


def find_artifact(home: Path, name: str) -> Artifact | None:
    """Return the artefact that a user names, or None where the name is of something else.

    These are tried in this order:

    - ``run:stage``: the artefact of a stage of a run under the home folder;
    - the folder of an artefact, of any store;
    - the id of an artefact in the home's store, or the start of it.
    """
    run, colon, stage = name.partition(":")
    if colon and run and (home / run / RUN_FILE).exists():
        stages = RunRecord(home / run).artifacts
        if stage not in stages:
            raise ArtifactError(
                f"Run {run!r} has no stage {stage!r}; it has {', '.join(stages) or 'none'}."
            )
        return stages[stage]
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not is_artifact(folder):
            return None
        artifact = Artifact(folder.resolve())
        artifact.check()
        return artifact
    store = Store(home / "store")
    if "/" in name or not store.root.is_dir() or not any(store.root.glob(_starting_with(name))):
        return None
    return store.get(name)


def _starting_with(name: str) -> str:
    """Return a pattern for the manifests of artefacts whose id starts with a text."""
    literal = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
    return f"{literal}*/{MANIFEST}"
