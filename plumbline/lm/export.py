"""Models for use elsewhere: whole ones, with every adapter merged into its base."""

from __future__ import annotations

from pathlib import Path

from plumbline.lm.adapter_kinds import check_merges
from plumbline.lm.load import load_causal_lm, load_config, load_sequence_scorer
from plumbline.lm.model_folder import ADAPTER_CONFIG, source_of
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.runs.artifacts import read_json


def is_reward_model(folder: Path) -> bool:
    """Return whether a model is a sequence classifier, by its adapter's or its own config."""
    source = source_of(folder)
    if source.adapter is not None:
        return bool(read_json(source.adapter / ADAPTER_CONFIG).get("task_type") == "SEQ_CLS")
    kinds = getattr(load_config(folder), "architectures", None) or []
    return any(kind.endswith("ForSequenceClassification") for kind in kinds)


def merge_model(folder: Path, target: Path, dtype: str | None = None) -> None:
    """Write a whole model: the base with all adapters in its weights, and the tokenizer.

    ``dtype`` is the number format of its weights; None keeps that of the base.
    """
    import torch

    is_reward = is_reward_model(folder)
    source = source_of(folder)
    if source.adapter is not None:
        check_merges(source.adapter)
    model = load_sequence_scorer(folder) if is_reward else load_causal_lm(folder)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    if dtype is not None:
        model = model.to(getattr(torch, dtype))
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    load_tokenizer(folder).save_pretrained(target)
