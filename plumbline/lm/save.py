"""Saving trained models: the whole of one, or its adapter with the name of its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.lm.adapters import is_of_role
from plumbline.lm.load import load_config
from plumbline.lm.model_folder import (
    ADAPTER,
    ADAPTER_CONFIG,
    REFERENCE,
    Source,
    portable,
    source_of,
)
from plumbline.lm.pissa import save_as_lora
from plumbline.lm.sharding import whole_weights
from plumbline.runs.artifacts import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    source: Path,
    card: str,
    writes: bool = True,
) -> None:
    """Save a trained model: the whole of it, or its adapter with the name of its base.

    ``source`` is the artefact it was trained from and ``card`` what its README says. Where several
    processes share a training, all call this, and one ``writes``.
    """
    from peft import PeftModel

    adapted = isinstance(model, PeftModel)
    weights = whole_weights(model, _is_of_adapter if adapted else None, keep=writes)
    if not writes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    _make_valid(model)
    if adapted:
        made_of = source_of(source)
        model.save_pretrained(
            folder,
            selected_adapters=[ADAPTER],
            save_embedding_layers=False,
            **({} if weights is None else {"state_dict": weights}),
        )
        save_as_lora(model, folder)
        _name_base(folder, made_of)
        if (source / REFERENCE).exists():
            made_of.reference.write(folder)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(folder)
        card += _how_to_open(folder, tokenizer, source)
    else:
        model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def model_card(title: str, sentences: str, *, library: str = "transformers") -> str:
    """Return a model card that says what a model is, without empty headings."""
    return f"---\nlibrary_name: {library}\ntags:\n- plumbline\n---\n\n# {title}\n\n{sentences}\n"


def _name_base(folder: Path, made_of: Source) -> None:
    """Name the base by a hub id or a relative path, and the layers in order.

    PEFT writes the path from which the base was loaded, and keeps the layers as a set, ordered
    otherwise in every process.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    config["base_model_name_or_path"] = portable(made_of.reference.name_or_path, folder)
    config["revision"] = made_of.base.revision
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    write_json(folder / ADAPTER_CONFIG, config)


def _how_to_open(folder: Path, tokenizer: PreTrainedTokenizerBase, source: Path) -> str:
    """Return what a README says about an adapter's base, and how PEFT finds it."""
    named = read_json(folder / ADAPTER_CONFIG)["base_model_name_or_path"]
    text = f"\nThis is a PEFT adapter on `{named}`"
    if named.startswith("."):
        text += (
            ", a path relative to this folder. PEFT's Auto classes look for it from the working "
            "directory, so call them in this folder, or load the base by its path and then "
            "`PeftModel.from_pretrained(base, this_folder)`"
        )
    text += ".\n"
    rows = load_config(source).get_text_config().vocab_size
    if len(tokenizer) > rows:
        text += (
            f"\nIts tokenizer has {len(tokenizer)} tokens and the base {rows} rows: one for "
            "padding was added. Before you put the adapter on the base, call "
            f"`base.resize_token_embeddings({len(tokenizer)})`.\n"
        )
    return text


def _is_of_adapter(name: str) -> bool:
    return is_of_role(name, ADAPTER)


def _make_valid(model: Any) -> None:
    """Drop sampling settings that contradict each other, as some models bring them.

    transformers refuses to save those, at the end of a training.
    """
    from transformers import GenerationConfig

    config = getattr(model, "generation_config", None)
    if config is None:
        return
    try:
        config.validate(strict=True)
    except ValueError:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        kept = GenerationConfig(**{name: getattr(config, name) for name in names})
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        whole.generation_config = kept
