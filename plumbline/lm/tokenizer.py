"""Loading tokenizers: with a chat template, and with a padding token that is not the end token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.errors import ModelError
from plumbline.lm.chat import DEFAULT_TEMPLATE
from plumbline.lm.model_folder import source_of, translate_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Tokens that models bring for padding, or that nothing else uses, best first.
_PAD_CANDIDATES = (
    "<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|padding|>", "<|vision_pad|>",
    "<unk>", "[UNK]", "<|unk|>",
)  # fmt: skip
_NEW_PAD = "<|pad|>"


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
        tokenizer = translate_errors(
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
