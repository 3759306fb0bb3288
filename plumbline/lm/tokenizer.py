"""Loading tokenizers: with a chat template that serves, and with padding that ends no response."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.errors import ModelError
from plumbline.lm.chat import DEFAULT_TEMPLATE, ConversationRefusedError, turn_end
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
    end = tokenizer.eos_token_id
    if end >= tokenizer.vocab_size and not source.adapters:  # an added token; adapters add rows
        rows = load(AutoConfig.from_pretrained, source.base).get_text_config().vocab_size
        if end >= rows:
            raise ModelError(
                f"The end token {tokenizer.eos_token!r} of {name} has the id {end}, and its model "
                f"has {rows} tokens, so no response could end by it. Set eos_token in "
                "tokenizer_config.json to a token of the model's, or resize the model's embeddings."
            )
    if not tokenizer.chat_template:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    _try_template(tokenizer, name)
    ends = (tokenizer.eos_token_id, turn_end(tokenizer).id)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        config = load(AutoConfig.from_pretrained, source.base)
        rows = config.get_text_config().vocab_size
        tokenizer.add_special_tokens({"pad_token": _padding(tokenizer, rows, ends)})
    return tokenizer


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
