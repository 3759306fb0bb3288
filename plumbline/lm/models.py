"""Models and tokenizers on disk: what `from_pretrained` reads, and nothing else.

A model artefact is one of three folders:

- a whole model (``config.json``, ``model.safetensors``, tokenizer),
- a PEFT adapter (``adapter_config.json``, ``adapter_model.safetensors``, tokenizer), which names
  its base,
- a reference (``reference.json``) to a model in a local folder or on the hub, which is not copied.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.errors import ModelError
from plumbline.lm.chat import DEFAULT_TEMPLATE
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFERENCE = "reference.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "default"
"""The name of the adapter that is being trained; PEFT writes that one at the folder's top."""

#: Tokens that models bring for padding, or that nothing else uses, best first.
_PAD_CANDIDATES = (
    "<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|padding|>", "<|vision_pad|>",
    "<unk>", "[UNK]", "<|unk|>",
)  # fmt: skip
_NEW_PAD = "<|pad|>"


@dataclass(frozen=True)
class Reference:
    """A model that lies elsewhere, and how it is to be loaded."""

    name_or_path: str
    revision: str | None = None
    dtype: str = "auto"
    attention: str = "sdpa"
    trust_remote_code: bool = False

    def write(self, folder: Path) -> None:
        """Write ``reference.json``."""
        write_json(folder / REFERENCE, asdict(self))

    def options(self, *, quantize: bool) -> dict[str, Any]:
        """Return the keyword arguments of ``from_pretrained``."""
        import torch

        options: dict[str, Any] = {
            "revision": self.revision,
            "trust_remote_code": self.trust_remote_code,
            "attn_implementation": self.attention,
            "dtype": self.dtype if self.dtype == "auto" else getattr(torch, self.dtype),
        }
        if quantize:
            options["quantization_config"] = _nf4(options["dtype"])
        if torch.cuda.is_available():
            options["device_map"] = {"": torch.cuda.current_device()}
        return options


@dataclass(frozen=True)
class Source:
    """Where a model artefact's weights are: a base, and perhaps an adapter on it."""

    base: Reference
    adapter: Path | None


def source_of(folder: Path) -> Source:
    """Find out what a model artefact is made of."""
    reference = folder / REFERENCE
    base = Reference(**read_json(reference)) if reference.exists() else Reference(str(folder))
    adapter_config = folder / ADAPTER_CONFIG
    if not adapter_config.exists():
        if not reference.exists() and not (folder / "config.json").exists():
            raise ModelError(
                f"{folder} holds no model: it has neither config.json, {ADAPTER_CONFIG} "
                f"nor {REFERENCE}."
            )
        return Source(base, None)
    if not reference.exists():
        named = read_json(adapter_config)["base_model_name_or_path"]
        moved = folder.parent / Path(named).name  # the whole store may have been moved
        base = Reference(str(moved) if not Path(named).exists() and moved.exists() else named)
    return Source(base, folder)


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


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer with a chat template and a padding token that is not the end token.

    Where padding equals the end token, a sequence classifier looks for the last real token in the
    wrong place, and masks made from ids lose the end of every answer.
    """
    from transformers import AutoTokenizer

    source = source_of(folder)
    if (folder / "tokenizer_config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    else:
        tokenizer = _translate_errors(
            AutoTokenizer.from_pretrained,
            source.base.name_or_path,
            revision=source.base.revision,
            trust_remote_code=source.base.trust_remote_code,
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"The tokenizer of {source.base.name_or_path} has no end-of-sequence token, so no "
            "answer could end. Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        found = [
            token
            for token in _PAD_CANDIDATES
            if token in vocabulary and token not in (tokenizer.eos_token, tokenizer.bos_token)
        ]
        # Adding one is safe: `_make_room` gives the model a row for it, and no loss sees padding.
        tokenizer.add_special_tokens({"pad_token": found[0] if found else _NEW_PAD})
    if not tokenizer.chat_template:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    return tokenizer


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


def backbone(model: Any) -> Any:
    """Return the decoder without its language-model head; adapters in it stay in place."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return whole.base_model


def parameter_counts(model: Any) -> dict[str, float]:
    """Return how many parameters a model has, and how many of them train."""
    parameters = list(model.parameters())
    return {
        "parameters": float(sum(p.numel() for p in parameters)),
        "trainable_parameters": float(sum(p.numel() for p in parameters if p.requires_grad)),
    }


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
    model = _translate_errors(auto_class.from_pretrained, reference.name_or_path, **options)
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


def _translate_errors(function: Any, name: str, **options: Any) -> Any:
    try:
        return function(name, **options)
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The model {name!r} cannot be loaded: {first} "
            "A name is a local folder or a hub id; a hub id needs the network (or a filled cache, "
            "with HF_HUB_OFFLINE=1) and, for gated models, a login: hf auth login."
        ) from error


def _nf4(dtype: Any) -> Any:
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "method: qlora needs bitsandbytes, which is not installed: "
            "pip install 'plumbline-rlhf[qlora]', or set method: lora."
        )
    compute = torch.float32 if dtype in ("auto", torch.float32) else dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
