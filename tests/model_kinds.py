"""Tiny random models, one for each way in which tokenizers and chat templates differ.

``chatml``        ChatML as instruction-tuned models have it: the template's end of turn is the
                  tokenizer's end token.
``base-chatml``   The same template on a base model: the tokenizer's end token is another, and it
                  is the padding token, too.
``unmarked-end``  Generation markers that leave the end of the turn out.
``strict``        Roles must alternate, no system turn, white space trimmed.
``think``         An empty block of reasoning before the last response only.
``plain``         No line break after the role.
``no-end``        A template that writes no end token at all.
``short-context`` GPT-2 with 64 learned positions.

``python tests/model_kinds.py FOLDER`` makes them all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

_TURN = "'<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n'"
_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
_CHATML = f"{{% for m in messages %}}{{{{ {_TURN} }}}}{{% endfor %}}{_PROMPT}"
TEMPLATES = {
    "chatml": _CHATML,
    "base-chatml": _CHATML,
    "unmarked-end": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\\n' }}"
        "{% generation %}{{ m.content }}{% endgeneration %}{{ '<|im_end|>\\n' }}"
        f"{{% else %}}{{{{ {_TURN} }}}}{{% endif %}}{{% endfor %}}{_PROMPT}"
    ),
    "strict": (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate between user and assistant') }}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\\n' + m.content | trim + '<|im_end|>\\n' }}{% endfor %}"
        f"{_PROMPT}"
    ),
    "think": (
        "{% for m in messages %}{% if m.role == 'assistant' and loop.last %}"
        "{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + m.content + '<|im_end|>\\n' }}"
        f"{{% else %}}{{{{ {_TURN} }}}}{{% endif %}}{{% endfor %}}{_PROMPT}"
    ),
    "plain": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + ':' + m.content + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant:' }}{% endif %}"
    ),
    "no-end": (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    ),
    "short-context": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' + m.content + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
    ),
}
KINDS = tuple(TEMPLATES)
#: Splits as Qwen's tokenizers do: line breaks in a row are one piece of text.
_PIECES = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip
_TEXTS = ["Describe the red item.\nIt costs ten crowns.\n\nYes\n\n\nNo\n"] * 50


def make_tokenizer(kind: str) -> Any:
    """Return a byte-level tokenizer with a kind's template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>" if kind == "base-chatml" else "<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATES[kind]
    return fast


def make_model(folder: Path, kind: str) -> Path:
    """Write a random model of a kind."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer(kind)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    if kind == "short-context":
        config = GPT2Config(
            vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2,
            bos_token_id=tokenizer.eos_token_id, **ends,
        )  # fmt: skip
        GPT2LMHeadModel(config).save_pretrained(folder)
        return folder
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512,
            tie_word_embeddings=False, bos_token_id=None, **ends,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


if __name__ == "__main__":
    for one in KINDS:
        make_model(Path(sys.argv[1]) / one, one)
