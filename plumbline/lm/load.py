"""Loading models from their folders: for use, or ready for training.

A weight that a library had to make up, because it is missing or of another shape, is an error:
the model would give random responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.errors import ModelError
from plumbline.lm import model_folder
from plumbline.lm.adapter_kinds import check_continues, check_merges
from plumbline.lm.chat import end_token_ids
from plumbline.lm.layers import train_last_layers
from plumbline.lm.load_report import LoadReport, listed
from plumbline.lm.model_folder import (
    ADAPTER,
    Reference,
    Source,
    source_of,
    translated,
)
from plumbline.lm.pissa import remember_pissa_start
from plumbline.lm.quantized import keep_unpacked, nf4_config
from plumbline.lm.sharding import loads_on_cpu
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig
from plumbline.lm.weight_files import HEADS, check_reward_head

_HEAD = (HEADS[0],)


def load_config(folder: Path) -> Any:
    """Load a model's config: its sizes, and how long a text it takes."""
    from transformers import AutoConfig

    return model_folder.load(AutoConfig.from_pretrained, source_of(folder).base)


def load_causal_lm(folder: Path, *, quantize: bool = False, trainable: bool = False) -> Any:
    """Load a language model, with its adapter if it has one (named `ADAPTER`)."""
    from transformers import AutoModelForCausalLM

    source = source_of(folder)
    model, report = _load_base(AutoModelForCausalLM, folder, source, quantize=quantize)
    report.refuse(report.missing | report.unexpected, "a language model")
    return _with_adapter(model, source, trainable=trainable)


def load_sequence_scorer(folder: Path) -> Any:
    """Load a trained reward model: a sequence classifier, of one label or one per aspect."""
    return _load_scorer(folder, per_token=False)


def load_step_scorer(folder: Path) -> Any:
    """Load a trained process reward model: a token classifier."""
    return _load_scorer(folder, per_token=True)


def _load_scorer(folder: Path, *, per_token: bool) -> Any:
    check_reward_head(folder)
    source = source_of(folder)
    model, report = _load_base(
        _classifier(per_token),
        folder,
        source,
        quantize=False,
        num_labels=head_outputs(folder),
    )
    # An adapter brings the head, and the base under it may be a language model.
    above = report.above_the_trunk if source.adapter is not None else set()
    report.refuse((report.missing | report.unexpected) - above, "a reward model")
    return _with_adapter(model, source, trainable=False)


def _classifier(per_token: bool) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    return AutoModelForTokenClassification if per_token else AutoModelForSequenceClassification


def head_outputs(folder: Path) -> int:
    """Return how many outputs a model's reward head has; 1 where its files do not say."""
    from safetensors import safe_open

    source = source_of(folder)
    for file in (source.adapter or Path(source.base.name_or_path)).glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - an open file, and no mapping
                if name.endswith(tuple(f"{head}.weight" for head in HEADS)):
                    return int(weights.get_slice(name).get_shape()[0])
    if source.adapter is None and not Path(source.base.name_or_path).is_dir():
        return int(load_config(folder).num_labels)  # of the hub
    return 1


def load_classifier(folder: Path) -> tuple[Any, Any]:
    """Load a text classifier with labels of its own, and its tokenizer."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    reference = source_of(folder).base
    tokenizer = model_folder.load(AutoTokenizer.from_pretrained, reference)
    model, info = model_folder.load(
        AutoModelForSequenceClassification.from_pretrained, reference, output_loading_info=True
    )
    report = LoadReport(str(folder), model, info)
    report.refuse(report.missing | report.unexpected, "a text classifier")
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def trainable_causal_lm(folder: Path, tuning: TuningConfig) -> Any:
    """Load a language model ready for training as the tuning says.

    An adapter that the folder has continues to train. Where the whole model is to train, it is
    merged first.
    """
    source = source_of(folder)
    if not tuning.has_adapter:
        if source.adapter is not None:
            check_merges(source.adapter)
        model = load_causal_lm(folder)
        return _whole(model if source.adapter is None else _merged(model), tuning)
    if source.adapter is not None:
        check_continues(source.adapter, tuning)
    model = load_causal_lm(folder, quantize=tuning.quantized, trainable=True)
    return model if source.adapter is not None else _with_new_adapter(model, source, tuning)


def base_with_idle_adapter(folder: Path) -> Any:
    """Load what a folder's adapter was trained on, with an adapter that changes nothing.

    More adapters can then be added to it.
    """
    from transformers import AutoModelForCausalLM

    source = source_of(folder)
    model, _ = _load_base(AutoModelForCausalLM, folder, source, quantize=False)
    return _with_new_adapter(model, source, TuningConfig(method="lora", rank=1)).eval()


def trainable_sequence_scorer(
    folder: Path, tuning: TuningConfig, *, labels: Sequence[str] = (), per_token: bool = False
) -> Any:
    """Load a language model as a sequence classifier with a new head: one label, or ``labels``.

    The head starts at random: seed the generators before. An adapter in the folder is merged for
    ``method: full``; otherwise its weights start the reward model's adapter. ``per_token``: a
    classifier of tokens.
    """
    from peft import (
        PeftConfig,
        get_peft_model,
        get_peft_model_state_dict,
        load_peft_weights,
        set_peft_model_state_dict,
    )

    source = source_of(folder)
    names = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    model, report = _load_base(
        _classifier(per_token),
        folder,
        source,
        quantize=tuning.quantized,
        num_labels=len(labels) or 1,
        **(names if labels else {}),
    )
    if per_token:  # whose head would drop states by its own default
        model.config.classifier_dropout = 0.0
        model.dropout.p = 0.0
    # The new head is to be missing, and the language model's head has no use here.
    report.refuse((report.missing | report.unexpected) - report.above_the_trunk, "a language model")
    task = "TOKEN_CLS" if per_token else "SEQ_CLS"
    if source.adapter is None:
        if not tuning.has_adapter:
            return _whole(model, tuning)
        return get_peft_model(model, tuning.peft_config(model, task, modules_to_save=_HEAD))
    if tuning.has_adapter:
        check_continues(source.adapter, tuning)
    else:
        check_merges(source.adapter)
    from plumbline.lm import bottleneck  # noqa: F401 - PEFT opens such an adapter with it

    peft_config = PeftConfig.from_pretrained(source.adapter)
    peft_config.task_type, peft_config.modules_to_save = task, list(_HEAD)
    peft_config.inference_mode = False
    peft_config.base_model_name_or_path = peft_config.revision = None
    if hasattr(peft_config, "lora_dropout"):
        peft_config.lora_dropout = tuning.dropout
    model = get_peft_model(model, peft_config)
    # The head is new, so the policy's adapter has no weights for it.
    weights = get_peft_model_state_dict(model) | load_peft_weights(source.adapter)
    set_peft_model_state_dict(model, weights)
    return model if tuning.has_adapter else _whole(_merged(model), tuning)


def trainable_classifier(
    folder: Path, tuning: TuningConfig, labels: Sequence[str], *, several: bool
) -> Any:
    """Load a language model as a text classifier with a new head; ``several``: labels may coincide.

    The head starts at random: seed the generators before. An adapter in the folder is merged.
    """
    from peft import get_peft_model
    from transformers import AutoModelForSequenceClassification

    source = source_of(folder)
    if source.adapter is not None:
        raise ModelError(
            f"{folder} is an adapter on {source.reference.name_or_path}. A classifier starts from "
            "a whole model: give that base, or merge the adapter first (plumbline merge)."
        )
    model, report = _load_base(
        AutoModelForSequenceClassification,
        folder,
        source,
        quantize=tuning.quantized,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        problem_type="multi_label_classification" if several else "single_label_classification",
    )
    report.refuse((report.missing | report.unexpected) - report.above_the_trunk, "a language model")
    if not tuning.has_adapter:
        return _whole(model, tuning)
    return get_peft_model(model, tuning.peft_config(model, "SEQ_CLS", modules_to_save=_HEAD))


def load_trunk(folder: Path) -> Any:
    """Load a decoder without a head, such as an embedding model."""
    from transformers import AutoModel

    model, info = model_folder.load(
        AutoModel.from_pretrained, Reference(str(folder)), output_loading_info=True
    )
    report = LoadReport(str(folder), model, info)
    report.refuse(report.missing | report.unexpected, "a decoder without a head")
    return model


def trainable_trunk(folder: Path, tuning: TuningConfig) -> Any:
    """Load a language model's decoder without its head, ready for training as the tuning says."""
    from peft import get_peft_model

    model = trainable_causal_lm(folder, TuningConfig(method="full")).base_model
    if tuning.has_adapter:
        model.requires_grad_(False)
        return get_peft_model(model, tuning.peft_config(model, "FEATURE_EXTRACTION"))
    return _whole(model, tuning)


def _load_base(
    auto_class: Any, folder: Path, source: Source, *, quantize: bool, **options: Any
) -> tuple[Any, LoadReport]:
    """Load all that an artefact's own adapter stands on, and report what was missing."""
    from peft import PeftModel

    below = source.adapters[:-1]
    if below and quantize:
        raise ModelError(
            f"{source.adapter} is an adapter on an adapter, {below[-1]}, which cannot be merged "
            "into weights of 4 bits. Set method: lora, or merge it first (method: full)."
        )
    model, info = model_folder.load(
        auto_class.from_pretrained,
        source.base,
        output_loading_info=True,
        **options,
        **_options(source.base, quantize=quantize),
    )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{source.base.name_or_path} is a PEFT adapter and no whole model. Download it (hf "
            "download NAME --local-dir FOLDER) and give the folder."
        )
    keep_unpacked(model)
    for adapter in below:
        check_merges(adapter)
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    tokenizer = load_tokenizer(folder)
    _make_room(model, len(tokenizer))
    # No row is left out of training because some config calls its token padding: masks do that.
    model.get_input_embeddings().padding_idx = None
    _set_end_tokens(model, end_token_ids(tokenizer, _ends_of(model)))
    # By this a sequence classifier finds the last token before the padding.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model, LoadReport(source.base.name_or_path, model, info)


def _options(reference: Reference, *, quantize: bool) -> dict[str, Any]:
    """Return the keyword arguments with which a base's weights are loaded."""
    import torch

    options: dict[str, Any] = {
        "attn_implementation": reference.attention,
        "dtype": reference.dtype if reference.dtype == "auto" else getattr(torch, reference.dtype),
    }
    if quantize:
        options["quantization_config"] = nf4_config(options["dtype"])
    if torch.cuda.is_available() and not loads_on_cpu():
        options["device_map"] = {"": torch.cuda.current_device()}
    return options


def _with_adapter(model: Any, source: Source, *, trainable: bool) -> Any:
    if source.adapter is None:
        return model
    from peft import PeftModel, get_peft_model_state_dict, load_peft_weights

    from plumbline.lm import bottleneck  # noqa: F401 - PEFT opens such an adapter with it

    weights = translated(load_peft_weights, str(source.adapter), device="cpu")
    model = translated(
        lambda folder: PeftModel.from_pretrained(
            model, folder, adapter_name=ADAPTER, is_trainable=trainable
        ),
        str(source.adapter),
    )
    missing = set(get_peft_model_state_dict(model, save_embedding_layers=False)) - set(weights)
    if missing:
        raise ModelError(
            f"{source.adapter} is not the whole of an adapter: {listed(missing)} is not in its "
            "files, and would be new. Fetch it again."
        )
    _name_base(model, source)
    return model


def _with_new_adapter(model: Any, source: Source, tuning: TuningConfig) -> Any:
    from peft import get_peft_model

    config = tuning.peft_config(model, "CAUSAL_LM")
    model = get_peft_model(model, config, adapter_name=ADAPTER)
    if tuning.row.changes_base:
        remember_pissa_start(model, tuning)
    _name_base(model, source)
    return model


def _name_base(model: Any, source: Source) -> None:
    """Name what the adapter stands on by where it is now, not by what its files say."""
    model.peft_config[ADAPTER].base_model_name_or_path = source.reference.name_or_path
    model.peft_config[ADAPTER].revision = source.base.revision


def _whole(model: Any, tuning: TuningConfig) -> Any:
    """Return a model to train in its own weights, which it keeps in float32.

    In bfloat16 a step of the usual size is less than half of the last digit and is rounded away:
    at a learning rate of 1e-6 all but 0.25 % of a toy's weights stayed where they were. What is
    computed in bfloat16 is a setting of its own (``bf16``, ``precision``).
    """
    model = model.float()
    if "trained_layers" in tuning.row.settings:
        train_last_layers(model, tuning.trained_layers)
    return model


def _merged(model: Any) -> Any:
    """Return a model with its adapter in its weights, which all train: PEFT leaves them frozen."""
    whole = model.merge_and_unload()
    whole.requires_grad_(True)
    return whole


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


def _ends_of(model: Any) -> Any:
    """Return the end tokens that a model's generation config names."""
    return getattr(getattr(model, "generation_config", None), "eos_token_id", None)


def _set_end_tokens(model: Any, ids: frozenset[int]) -> None:
    """Let generation end at every token that ends a response, also after the model is saved."""
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.eos_token_id = min(ids) if len(ids) == 1 else sorted(ids)
