"""Models by the names that a user gives: an artefact, a stage of a run, a folder, a hub name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from plumbline.errors import ArtifactError, ModelError
from plumbline.lm.model_folder import ADAPTER_CONFIG, REFERENCE, Reference
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.runs.artifacts import MANIFEST, Artifact, Store, sha256
from plumbline.runs.run import RUN_FILE, Run, RunRecord
from plumbline.runs.stage import Stage, stage
from reward.calibration import CALIBRATION


@stage("model")
def link_model(
    stage: Stage, *, name_or_path: str, content: str | None
) -> Mapping[str, float | None]:
    """Link to a model outside the store; ``content`` is the digest of its folder."""
    folder = Path(name_or_path)
    Reference(name_or_path).write(stage.folder)
    if content is not None and (folder / CALIBRATION).exists():
        shutil.copyfile(folder / CALIBRATION, stage.folder / CALIBRATION)
    load_tokenizer(stage.folder)  # fails here with the name, and not in the middle of the work
    return {}


def find_model(run: Run, name: str, role: str) -> Artifact:
    """Return the model that a user names.

    These are tried in this order:

    - ``run:stage``: the artefact of a stage of a run under the same home;
    - a folder: an artefact of any store, or a folder that `from_pretrained` reads;
    - the id of an artefact, or the start of it;
    - a name on the hub.
    """
    record, separator, stage_name = name.partition(":")
    if separator and (run.home / record / RUN_FILE).exists():
        stages = RunRecord(run.home / record).artifacts
        if stage_name not in stages:
            raise ArtifactError(
                f"Run {record!r} has no stage {stage_name!r}; it has {', '.join(stages) or 'none'}."
            )
        return _checked(stages[stage_name], name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / MANIFEST).exists() and not (folder / REFERENCE).is_symlink():
            return _checked(Artifact(folder.resolve()), name)
        path = str(folder.resolve())
        return run.make(
            f"{role}/{folder.name}", link_model, name_or_path=path, content=_digest(folder)
        )
    store = Store(run.home / "store")
    if store.root.is_dir() and any(store.root.glob(f"{_literal(name)}*/{MANIFEST}")):
        return _checked(store.get(name), name)
    if separator or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(
            f"There is no model {name!r}: no run of that name under {run.home} and no folder. Give "
            "the id of an artefact, run:stage, a folder that from_pretrained reads, or a hub name."
        )
    return run.make(f"{role}/{name}", link_model, name_or_path=name, content=None)


def _checked(artifact: Artifact, name: str) -> Artifact:
    files = artifact.manifest.files
    if not {"config.json", ADAPTER_CONFIG, REFERENCE} & set(files):
        raise ArtifactError(
            f"{name!r} is {artifact.id}, which holds no model: its kind is {artifact.kind!r}. Give "
            "a policy, a base or a reward model."
        )
    return artifact


def _digest(folder: Path) -> str:
    """Return a digest of the files of a folder, so that other weights are another model."""
    if not {"config.json", ADAPTER_CONFIG} & {file.name for file in folder.iterdir()}:
        raise ModelError(
            f"{folder} holds no model: it has neither config.json nor {ADAPTER_CONFIG}. Give a "
            "folder that from_pretrained reads."
        )
    files = sorted(file for file in folder.iterdir() if file.is_file())
    text = "".join(f"{file.name}\0{sha256(file)}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
