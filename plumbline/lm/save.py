"""Saving trained models: the whole of one, or its adapter with the name of its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.lm.model_folder import ADAPTER, ADAPTER_CONFIG, REFERENCE, source_of
from plumbline.runs.artifacts import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def save_model(
    model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, *, source: Path, card: str
) -> None:
    """Save a trained model: the whole of it, or its adapter with the name of its base.

    ``source`` is the artefact it was trained from and ``card`` what its README says.
    """
    from peft import PeftModel

    if isinstance(model, PeftModel):
        base = source_of(source).base
        model.peft_config[ADAPTER].base_model_name_or_path = base.name_or_path
        model.peft_config[ADAPTER].revision = base.revision
        model.save_pretrained(folder, selected_adapters=[ADAPTER], save_embedding_layers=False)
        _order_names(folder / ADAPTER_CONFIG)
        if (source / REFERENCE).exists():
            base.write(folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _order_names(file: Path) -> None:
    """Write the layers' names in order: PEFT keeps a set, ordered otherwise in every process."""
    config = read_json(file)
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    write_json(file, config)


def model_card(title: str, sentences: str, *, library: str = "transformers") -> str:
    """Return a model card that says what a model is, without empty headings."""
    return f"---\nlibrary_name: {library}\ntags:\n- plumbline\n---\n\n# {title}\n\n{sentences}\n"
