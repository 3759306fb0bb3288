"""Loading tokenizers: with a chat template that serves, and with padding that ends no response."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.errors import ModelError
from plumbline.lm.chat import (
    DEFAULT_TEMPLATE,
    ConversationRefusedError,
    conversation_ids,
    turn_end,
)
from plumbline.lm.model_folder import load, source_of, translated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Tokens that models bring for padding, best first.
_PADS = (
    "<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|padding|>", "<|vision_pad|>",
    "<|fim_pad|>", "<unk>", "[UNK]", "<|unk|>",
)  # fmt: skip
#: Names of tokens that nothing uses.
_SPARE = re.compile(r"reserved|unused|extra_\d|dummy|placeholder", re.IGNORECASE)
_NEW_PAD = "<|pad|>"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer with a chat template and a padding token that ends no response.

    Where padding equals the end token, a sequence classifier looks for the last real token in the
    wrong place, and masks made from ids lose the end of every response.
    """
    from transformers import AutoConfig, AutoTokenizer

    source = source_of(folder)
    if (folder / "tokenizer_config.json").exists():
        # Never its own Python: a tokenizer that needs some belongs to a model that does.
        tokenizer = translated(AutoTokenizer.from_pretrained, str(folder), trust_remote_code=False)
    else:
        tokenizer = load(AutoTokenizer.from_pretrained, source.base)
    name = str(folder) if source.adapters else source.base.name_or_path
    if not tokenizer("Hello", add_special_tokens=False)["input_ids"]:
        raise ModelError(
            f"{name} has no tokenizer: there is no vocabulary in it. Copy tokenizer.json (or "
            "tokenizer.model) and tokenizer_config.json of its base into it."
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"The tokenizer of {name} has no end-of-sequence token, so no response could end. "
            "Set eos_token in its tokenizer_config.json."
        )
    if not tokenizer.chat_template:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    _try_template(tokenizer, name)
    ends = (tokenizer.eos_token_id, turn_end(tokenizer).id)
    pad = tokenizer.pad_token_id
    needs_padding = pad is None or pad in ends
    try:
        rows = load(AutoConfig.from_pretrained, source.base).get_text_config().vocab_size
    except ModelError:  # a config by code of its own, say; why it does not open is the model's
        if needs_padding:
            raise
        return tokenizer
    if not source.adapters:  # which may bring rows of their own
        _refuse_tokens_without_rows(tokenizer, rows, name)
        needs_padding = needs_padding or pad >= rows
    if needs_padding:
        tokenizer.add_special_tokens({"pad_token": _padding(tokenizer, rows, ends)})
    return tokenizer


def _refuse_tokens_without_rows(tokenizer: PreTrainedTokenizerBase, rows: int, name: str) -> None:
    """Raise `ModelError` where the model has no row for a token that every conversation has."""
    if tokenizer.vocab_size > rows:
        raise ModelError(
            f"The tokenizer of {name} has {tokenizer.vocab_size} tokens, and its model has rows "
            f"for {rows}: they do not belong together. Copy the tokenizer that the model was "
            "trained with into the folder."
        )
    unlearnt = "so what it means was never learnt. "
    set_to = " in tokenizer_config.json to a token of the model's"
    wanted = {
        tokenizer.eos_token_id: (
            "end token", f"so no response could end by it. Set eos_token{set_to}"
        )
    }  # fmt: skip
    if tokenizer.bos_token_id is not None:
        begins = ("token that begins a text", f"{unlearnt}Set bos_token{set_to}")
        wanted.setdefault(tokenizer.bos_token_id, begins)
    of_template = f"{unlearnt}Let chat_template.jinja write a token of the model's"
    for id in conversation_ids(tokenizer):
        wanted.setdefault(id, ("token of the chat template", of_template))
    for id, (what, advice) in sorted(wanted.items()):
        if id >= rows:
            raise ModelError(
                f"The {what} {tokenizer.convert_ids_to_tokens(id)!r} of {name} has the id {id}, "
                f"and its model has {rows} tokens, {advice}, or resize the model's embeddings."
            )


def _padding(tokenizer: PreTrainedTokenizerBase, rows: int, ends: tuple[int, ...]) -> str:
    """Return a token to pad with, of those for which the model has a row if it can be.

    Any will do that ends no response: attention masks hide it.
    """
    vocabulary = tokenizer.get_vocab()
    special: dict[str, int] = {
        str(token.content): id
        for id, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and id < rows and id not in ends
    }
    text_tokens = [token for token in special if token != tokenizer.bos_token]
    spare = [token for token in text_tokens if _SPARE.search(token)]
    for pad in (*_PADS, *spare):
        if pad in vocabulary and vocabulary[pad] < rows and vocabulary[pad] not in ends:
            return pad
    if len(tokenizer) < rows:  # a row that no token has
        return _NEW_PAD
    # A mark of the template's, such as the start of a turn. Without any, the model gets a row more.
    return next(iter([*text_tokens, *special]), _NEW_PAD)


def _try_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Let the chat template write a question and its answer; raise `ModelError` if it cannot."""
    try:
        turn_end(tokenizer)
    except ConversationRefusedError as error:
        raise ModelError(
            f"The chat template of {name} cannot write a question with its answer: {error}. "
            "Fix chat_template.jinja beside the model."
        ) from None
