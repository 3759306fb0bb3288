"""What identifies a reward model: a hash of everything that its scores depend on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from plumbline.errors import ModelError
from plumbline.lm.model_folder import ADAPTER_CONFIG, REFERENCE, source_of
from plumbline.runs.artifacts import MANIFEST, Artifact, is_artifact, read_json, sha256

#: What makes a folder an ensemble: the folders of its members beside it, and how they combine.
ENSEMBLE = "ensemble.json"
#: Files that change no score.
_WITHOUT_EFFECT = (MANIFEST, REFERENCE, "README.md", "metrics.jsonl", "dropped.jsonl")


def content_of(folder: Path) -> str:
    """Return the hash of a model's files and of its base's: 64 hexadecimal digits.

    Two folders with the same files have the same hash, wherever they are. A base on the hub counts
    by its name and revision. Raises `ModelError` where the folder holds no model.
    """
    if (folder / ENSEMBLE).exists():
        facts = read_json(folder / ENSEMBLE)
        members = [content_of(folder / name) for name in facts["members"]]
        return _hash([facts["how"], facts["uncertainty_weight"], members])
    source = source_of(folder)
    base = Path(source.base.name_or_path)
    places = dict.fromkeys([folder, *source.adapters, *([base] if base.is_dir() else [])])
    hashes = [sorted(_hashes(place).items()) for place in places]
    named = None if base.is_dir() else [source.base.name_or_path, source.base.revision]
    return _hash([named, hashes])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder that has an effect on scores."""
    if is_artifact(folder):  # known already
        files = {name: entry.sha256 for name, entry in Artifact(folder).manifest.files.items()}
    else:
        files = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
    files = {name: value for name, value in files.items() if _has_effect(name)}
    if ADAPTER_CONFIG in files:  # without the place of the base, which is hashed itself
        config = read_json(folder / ADAPTER_CONFIG)
        config.pop("base_model_name_or_path", None)
        text = json.dumps(config, sort_keys=True)
        files[ADAPTER_CONFIG] = hashlib.sha256(text.encode()).hexdigest()
    if not files:
        raise ModelError(f"{folder} holds no files, so no model can be identified by them.")
    return files


def _has_effect(name: str) -> bool:
    return name not in _WITHOUT_EFFECT and "/" not in name
