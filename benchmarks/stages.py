"""Stages outside a run: a place to work in, and folders that stand for artefacts."""

from __future__ import annotations

from pathlib import Path

from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def new_stage(folder: Path) -> Stage:
    """Return a stage to work in, silent."""
    return Stage(folder, Reporter(quiet=True))
