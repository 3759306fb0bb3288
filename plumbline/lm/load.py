"""Loading models from their folders: for use, or ready for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plumbline.lm.model_folder import ADAPTER, Reference, Source, source_of, translate_errors
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig


def load_causal_lm(folder: Path, *, quantize: bool = False, trainable: bool = False) -> Any:
    """Load a language model, with its adapter if it has one (named `ADAPTER`)."""
    from transformers import AutoModelForCausalLM

    source = source_of(folder)
    model = _from_pretrained(AutoModelForCausalLM, folder, source.base, quantize=quantize)
    return _with_adapter(model, source, trainable=trainable)


def load_sequence_scorer(folder: Path) -> Any:
    """Load a trained reward model: a sequence classifier with one label."""
    from transformers import AutoModelForSequenceClassification

    source = source_of(folder)
    model = _from_pretrained(
        AutoModelForSequenceClassification, folder, source.base, quantize=False, num_labels=1
    )
    return _with_adapter(model, source, trainable=False)


def trainable_causal_lm(folder: Path, tuning: TuningConfig) -> Any:
    """Load a language model ready for training as the tuning says.

    An adapter that the folder has goes on training. With ``method: full`` it is merged first.
    """
    from peft import get_peft_model

    source = source_of(folder)
    if tuning.method == "full":
        model = load_causal_lm(folder)
        return _whole(model if source.adapter is None else _merged(model))
    model = load_causal_lm(folder, quantize=tuning.quantized, trainable=True)
    if source.adapter is not None:
        return model
    return get_peft_model(model, tuning.peft_config("CAUSAL_LM"), adapter_name=ADAPTER)


def trainable_sequence_scorer(folder: Path, tuning: TuningConfig) -> Any:
    """Load a language model as a sequence classifier with one label and a new head.

    The head starts at random: seed the generators before. An adapter in the folder is merged for
    ``method: full``; otherwise its weights start the reward model's adapter.
    """
    from peft import (
        PeftConfig,
        get_peft_model,
        get_peft_model_state_dict,
        load_peft_weights,
        set_peft_model_state_dict,
    )
    from transformers import AutoModelForSequenceClassification

    source = source_of(folder)
    model = _from_pretrained(
        AutoModelForSequenceClassification,
        folder,
        source.base,
        quantize=tuning.quantized,
        num_labels=1,
    )
    tokenizer = load_tokenizer(folder)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    peft_config = tuning.peft_config("SEQ_CLS", modules_to_save=("score",))
    if source.adapter is None:
        return _whole(model) if tuning.method == "full" else get_peft_model(model, peft_config)
    theirs = PeftConfig.from_pretrained(source.adapter)
    for name in ("r", "lora_alpha", "target_modules"):
        setattr(peft_config, name, getattr(theirs, name))
    model = get_peft_model(model, peft_config)
    # The head is new, so the policy's adapter has no weights for it.
    weights = get_peft_model_state_dict(model) | load_peft_weights(source.adapter)
    set_peft_model_state_dict(model, weights)
    return _whole(_merged(model)) if tuning.method == "full" else model


def _whole(model: Any) -> Any:
    """Return a model to train in all its weights, which it keeps in float32.

    In bfloat16 a step of the usual size is less than half of the last digit and is rounded away:
    at a learning rate of 1e-6 all but 0.25 % of a toy's weights stayed where they were. What is
    computed in bfloat16 is a setting of its own (``bf16``, ``precision``).
    """
    return model.float()


def _merged(model: Any) -> Any:
    """Return a model with its adapter in its weights, which all train: PEFT leaves them frozen."""
    whole = model.merge_and_unload()
    whole.requires_grad_(True)
    return whole


def _with_adapter(model: Any, source: Source, *, trainable: bool) -> Any:
    if source.adapter is None:
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(
        model, source.adapter, adapter_name=ADAPTER, is_trainable=trainable
    )


def _from_pretrained(
    auto_class: Any, folder: Path, reference: Reference, *, quantize: bool, **options: Any
) -> Any:
    options |= reference.options(quantize=quantize)
    model = translate_errors(auto_class.from_pretrained, reference.name_or_path, **options)
    _make_room(model, len(load_tokenizer(folder)))
    return model


def _make_room(model: Any, rows: int) -> None:
    """Give the model a row for a padding token that was added to its tokenizer.

    The new row is the mean of the others: the same in every process, unlike a random one.
    """
    import torch

    have = model.get_input_embeddings().weight.shape[0]
    if rows <= have:
        return
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None:
                layer.weight[have:] = layer.weight[:have].mean(0)
