"""Model cards for others: data, settings, figures, how to load the model, the base's licence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from plumbline.errors import ModelError
from plumbline.lm.model_folder import Reference, source_of
from plumbline.runs.artifacts import MANIFEST, Artifact, Store

#: Datasets, by the kind of their artefact.
_DATA = ("demonstrations", "preferences")
_MOST_ORIGINS = 8
#: Seconds to wait for what the hub says about a base.
_TIMEOUT = 10.0


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, as far as its files say."""

    base: str
    """The base's name on the hub, or its folder's name."""
    base_is_on_hub: bool
    license: str | None
    """The licence of the base, as its own card states it."""
    artifact: Artifact | None
    """What trained it; None for a model of another tool."""


def origin_of(folder: Path) -> Origin:
    """Find out where a model comes from."""
    base = source_of(folder).base
    artifact = Artifact(folder) if (folder / MANIFEST).exists() else None
    if artifact is not None and Path(base.name_or_path) == folder.resolve():
        base = _base_of(artifact) or base
    place = Path(base.name_or_path)
    if place.is_dir():
        return Origin(place.name, False, _license_in(place / "README.md"), artifact)
    return Origin(base.name_or_path, True, _license_on_hub(base), artifact)


def card_of(
    title: str,
    origin: Origin,
    *,
    license_: str | None,
    is_reward: bool,
    is_adapter: bool,
    repository: str,
) -> str:
    """Return a model card: data, settings, figures, how to load it, the licence of the base."""
    head: dict[str, Any] = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-classification" if is_reward else "text-generation",
        "tags": ["plumbline", "rlhf"],
    }
    if origin.base_is_on_hub:
        head["base_model"] = origin.base
    if license_ is not None:
        head["license"] = license_
    parts = ["---", *_yaml_lines(head), "---", "", f"# {title}", ""]
    kind = "A reward model" if is_reward else "A language model"
    parts += [f"{kind}, trained with Plumbline from `{origin.base}`."]
    if is_adapter:
        parts += ["It is an adapter, which needs that base."]
    if origin.artifact is not None:
        parts += _training_lines(origin.artifact)
    parts += ["", "## How to load it", "", *_loading_lines(repository, is_reward, is_adapter)]
    parts += ["", "## Licence", ""]
    if license_ is None:
        parts += [
            f"The licence of the base, `{origin.base}`, holds for this model, too. It is not known "
            "here: look it up on the base's own card before you use this model."
        ]
    else:
        parts += [f"That of the base, `{origin.base}`: {license_}."]
    return "\n".join(parts) + "\n"


def lineage(artifact: Artifact) -> Iterator[Artifact]:
    """Yield an artefact and all that it was made from, each once, the nearest first."""
    store = Store(artifact.path.parent)
    waiting, seen = [artifact], set()
    while waiting:
        nearest = waiting.pop(0)
        if nearest.id in seen:
            continue
        seen.add(nearest.id)
        yield nearest
        sources = (store.find(name) for name in nearest.manifest.inputs.values())
        waiting += [source for source in sources if source is not None]


def _base_of(artifact: Artifact) -> Reference | None:
    """Return the base that a fully trained model started from."""
    for ancestor in lineage(artifact):
        if ancestor.kind in ("base", "model") and ancestor.id != artifact.id:
            return source_of(ancestor.path).base
    return None


def _license_on_hub(base: Reference) -> str | None:
    """Return the licence of a model of the hub: of its card in the cache, or of what the hub says.

    None where neither states one, and where the hub cannot be reached.
    """
    import httpx
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    name, revision = base.name_or_path, base.revision
    try:
        card = try_to_load_from_cache(name, "README.md", revision=revision)
        stated = _license_in(Path(card)) if isinstance(card, str) else None
        if stated is not None:
            return stated
        data = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT).card_data
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx.HTTPError, OSError):
        return None
    stated = None if data is None else data.license
    return stated if isinstance(stated, str) else None


def _license_in(card: Path) -> str | None:
    """Return the licence that the head of a model card states."""
    if not card.exists():
        return None
    _, mark, rest = card.read_text(encoding="utf-8").partition("---\n")
    head, end, _ = rest.partition("\n---")
    try:
        values = YAML(typ="safe").load(head) if mark and end else None
    except YAMLError as error:
        raise ModelError(f"The head of {card} is not valid YAML: {error}. Correct it.") from None
    stated = values.get("license") if isinstance(values, Mapping) else None
    return stated if isinstance(stated, str) else None


def _training_lines(artifact: Artifact) -> list[str]:
    manifest = artifact.manifest
    lines = ["", "## Data", ""]
    data = [ancestor for ancestor in lineage(artifact) if ancestor.kind in _DATA]
    lines += [f"- {_described(ancestor)}" for ancestor in data]
    if not data:
        lines.append("Its files name no dataset.")
    lines += ["", "## Settings", "", "| setting | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in _settings_of(artifact)]
    lines += [f"| seed | {manifest.seed} |"]
    lines += ["", "## Figures", "", "| figure | value |", "|---|---|"]
    lines += [
        f"| {name.replace('_', ' ')} | {value:.6g} |"
        for name, value in manifest.metrics.items()
        if value is not None
    ]
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [*lines, "", f"Training took {manifest.seconds:,.0f} seconds. Versions: {versions}."]


def _settings_of(artifact: Artifact) -> list[tuple[str, str]]:
    config = artifact.manifest.arguments.get("arguments", {}).get("config", {})
    return list(_flat(config.get("values", {}), ""))


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def _described(artifact: Artifact) -> str:
    """Return what a dataset's own card says it is, and how many rows it has."""
    card = artifact.path / "README.md"
    _, _, text = (card.read_text(encoding="utf-8") if card.exists() else "").partition("\n# ")
    paragraphs = [part.strip() for part in text.split("\n\n")[1:]]
    description = paragraphs[0] if paragraphs else artifact.kind
    origins = [name for name in _origins(artifact) if name not in description]
    description += f" From {', '.join(origins)}." if origins else ""
    counts = [
        f"{artifact.metrics[f'{split}_rows']:,.0f} {words}"
        for split, words in (("train", "rows to train on"), ("test", "held out"))
        if artifact.metrics.get(f"{split}_rows") is not None
    ]
    return description + (f" {', '.join(counts)}." if counts else "")


def _origins(artifact: Artifact) -> list[str]:
    """Return the files and datasets that the rows came from, without folders."""
    import pyarrow.parquet as pq

    file = artifact.path / "train.parquet"
    if not file.exists() or "origin" not in pq.read_schema(file).names:
        return []
    names = pq.read_table(file, columns=["origin"])["origin"].unique().to_pylist()
    return [Path(name).name for name in names[:_MOST_ORIGINS] if name]


def _loading_lines(repository: str, is_reward: bool, is_adapter: bool) -> list[str]:
    task = "SequenceClassification" if is_reward else "CausalLM"
    auto = f"AutoPeftModelFor{task}" if is_adapter else f"AutoModelFor{task}"
    more = ", num_labels=1" if is_reward else ""
    return [
        "```python",
        *(
            [f"from peft import {auto}", "from transformers import AutoTokenizer"]
            if is_adapter
            else [f"from transformers import {auto}, AutoTokenizer"]
        ),
        "",
        f'model = {auto}.from_pretrained("{repository}"{more})',
        f'tokenizer = AutoTokenizer.from_pretrained("{repository}")',
        "```",
    ]


def _yaml_lines(values: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"- {item}" for item in value)]
        else:
            lines.append(f"{key}: {value}")
    return lines
