"""Models by a user's names: an artefact, a stage of a run, a folder, a GGUF file, a hub name."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plumbline.errors import ArtifactError, ModelError
from plumbline.lm.gguf_file import is_gguf
from plumbline.lm.model_folder import ADAPTER_CONFIG, REFERENCE, Reference
from plumbline.lm.weight_files import check_weights
from plumbline.runs.artifacts import Artifact, Store, read_json, sha256, write_json
from plumbline.runs.find import find_artifact
from plumbline.runs.make import make_in
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.runs.stage import Stage, stage
from plumbline.training.base_model import gguf_source, unpack_gguf
from reward.aspects import ASPECTS
from reward.calibration import CALIBRATION
from reward.classifier import load_scorer_tokenizer
from reward.content import ENSEMBLE
from reward.gate import GATE
from reward.process.scorer import PROCESS

_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?")


@stage("model")
def link_model(
    stage: Stage, *, name_or_path: str, content: str | None
) -> Mapping[str, float | None]:
    """Link to a model outside the store; ``content`` is the digest of its folder."""
    folder = Path(name_or_path)
    if content is not None and (folder / ENSEMBLE).exists():
        facts = read_json(folder / ENSEMBLE)
        members = [str(folder / member) for member in facts["members"]]
        write_json(stage.folder / ENSEMBLE, facts | {"members": members})
        if (folder / CALIBRATION).exists():
            shutil.copyfile(folder / CALIBRATION, stage.folder / CALIBRATION)
        load_scorer_tokenizer(Path(members[0]))
        return {}
    Reference(name_or_path).write(stage.folder)
    for name in (CALIBRATION, ASPECTS, GATE, PROCESS):  # what a reward model has beside its weights
        if content is not None and (folder / name).exists():
            shutil.copyfile(folder / name, stage.folder / name)
    load_scorer_tokenizer(stage.folder)  # both fail here, and not in the middle of the work
    check_weights(stage.folder)
    return {}


def find_model(run: Run, name: str, role: str) -> Artifact:
    """Return the model that a user names: an artefact, or one linked to by a stage ``role/name``.

    A name is ``run:stage``, the id of an artefact or its start, a folder (an artefact of any store,
    or what `from_pretrained` reads), a GGUF file, or a name on the hub.
    """
    artifact = _found(run.home, name)
    if artifact is not None:
        return artifact
    place, function, arguments = _call_for(run.home, name)
    return run.make(f"{role}/{place}", function, **arguments)


def find_model_folder(home: Path, name: str) -> Path:
    """Return the folder of the model that a user names, as `find_model` does, without a run."""
    artifact = _found(home, name)
    if artifact is not None:
        return artifact.path
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return folder.resolve()
    place, function, arguments = _call_for(home, name)
    store, quiet = Store(home.resolve() / "store"), Reporter(quiet=True)
    artifact, _ = make_in(store, place, function, arguments, quiet)
    return artifact.path


def _found(home: Path, name: str) -> Artifact | None:
    artifact = find_artifact(home, name)
    if artifact is None or (artifact.path / REFERENCE).is_symlink():
        return None
    return _checked(artifact, name)


def _call_for(
    home: Path, name: str
) -> tuple[str, Callable[..., Mapping[str, float | None]], dict[str, Any]]:
    """Return a short name, and the stage with its arguments that makes a model's artefact."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        link = {"name_or_path": str(folder.resolve()), "content": _digest(folder)}
        return folder.name, link_model, link
    if is_gguf(name):
        return folder.stem, unpack_gguf, {"file": gguf_source(name), "dtype": "auto"}
    if not _HUB_NAME.fullmatch(name):
        raise ModelError(
            f"There is no model {name!r}: no run of that name under {home} and no folder. Give "
            "the id of an artefact, run:stage, a folder that from_pretrained reads, a GGUF file, "
            "or a hub name."
        )
    return name, link_model, {"name_or_path": name, "content": None}


def _checked(artifact: Artifact, name: str) -> Artifact:
    files = artifact.manifest.files
    if not {"config.json", ADAPTER_CONFIG, REFERENCE, ENSEMBLE} & set(files):
        raise ArtifactError(
            f"{name!r} is {artifact.id}, which holds no model: its kind is {artifact.kind!r}. Give "
            "a policy, a base or a reward model."
        )
    return artifact


def _digest(folder: Path) -> str:
    """Return a digest of the files of a folder, so that other weights are another model."""
    _check_folder(folder)
    inside = folder.rglob("*") if (folder / ENSEMBLE).exists() else folder.iterdir()
    files = sorted(file for file in inside if file.is_file())
    text = "".join(f"{file.relative_to(folder)}\0{sha256(file)}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_folder(folder: Path) -> None:
    if not {"config.json", ADAPTER_CONFIG, ENSEMBLE} & {file.name for file in folder.iterdir()}:
        raise ModelError(
            f"{folder} holds no model: it has neither config.json nor {ADAPTER_CONFIG}. Give a "
            "folder that from_pretrained reads."
        )
