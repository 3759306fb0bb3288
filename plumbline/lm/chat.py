"""From conversations to token ids and back: the one place where this is done.

Four things go wrong when every stage does this by itself, and are settled here:

- a beginning-of-sequence token twice, because the template writes it and the tokenizer adds it;
- an answer tokenized apart from its prompt, so that a reward model is trained on other ids than
  it later scores;
- a loss on what the user said, or none on the token that ends the answer;
- an answer cut or hidden where the policy emits a special token in the middle of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from plumbline.data.records import Message, assistant
from plumbline.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")

#: For tokenizers that bring none. Every turn ends with the end-of-sequence token, so that the
#: model learns to stop, and nothing follows it.
DEFAULT_TEMPLATE = (
    "{% if bos_token %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}"
    "{{ message['content'] + eos_token }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class Encoded(NamedTuple):
    """A conversation as token ids; ``assistant_mask`` is 1 where the assistant speaks."""

    ids: list[int]
    assistant_mask: list[int]


class EncodedResponse(NamedTuple):
    """A prompt and the answer to it, tokenized together and split where the answer begins."""

    prompt_ids: list[int]
    response_ids: list[int]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> list[int]:
    """Return the ids of a prompt up to and with the start of the assistant's turn."""
    return _render(tokenizer, prompt, add_generation_prompt=True)


def encode_response(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], answer: str
) -> EncodedResponse:
    """Return the ids of a prompt and of a finished answer, which ends with the end token.

    The whole conversation is tokenized at once. Raises `ModelError` where the template does not
    continue its own prompt, since the model would then be trained on what it never sees.
    """
    prompt_ids = encode_prompt(tokenizer, prompt)
    ids = _render(tokenizer, [*prompt, assistant(answer)])
    _check_prefix(tokenizer, prompt_ids, ids)
    response_ids = _up_to_the_end_token(tokenizer, ids[len(prompt_ids) :])
    return EncodedResponse(prompt_ids, response_ids)


def encode_turns(
    tokenizer: PreTrainedTokenizerBase, before: Sequence[Message], turns: Sequence[Message]
) -> list[int]:
    """Return the ids between the end of a dialogue's last turn and the start of the next answer.

    ``before`` ends with the assistant's turn, up to and with its end token; ``turns`` follow.
    """
    ids = encode_prompt(tokenizer, [*before, *turns])
    through = _up_to_the_end_token(tokenizer, _render(tokenizer, before))
    _check_prefix(tokenizer, through, ids)
    return ids[len(through) :]


def encode_conversation(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Encoded:
    """Return the ids of a whole conversation and where in it the assistant speaks.

    Uses the template's generation markers where it has them; otherwise finds each assistant turn
    by rendering the conversation up to it.
    """
    if "{% generation" in _template(tokenizer) or "{%- generation" in _template(tokenizer):
        encoded = tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return Encoded(list(encoded["input_ids"]), list(encoded["assistant_masks"]))
    ids = _render(tokenizer, messages)
    mask = [0] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = encode_prompt(tokenizer, messages[:turn])
        through = _render(tokenizer, messages[: turn + 1])
        _check_prefix(tokenizer, before, through)
        _check_prefix(tokenizer, through, ids)
        said = _up_to_the_end_token(tokenizer, through[len(before) :])
        mask[len(before) : len(before) + len(said)] = [1] * len(said)
    return Encoded(ids, mask)


def decode_response(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], end_ids: frozenset[int]
) -> str:
    """Return the text of an answer without the token that ends it.

    Special tokens elsewhere in it stay visible: whoever judges the answer shall see them.
    """
    ids = list(ids)
    if ids and ids[-1] in end_ids:
        ids.pop()
    text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise ModelError(
            "The tokenizer has no chat template. Load it with "
            "plumbline.lm.tokenizer.load_tokenizer, which gives it one, or save one beside the "
            "model as chat_template.jinja."
        )
    template: str = tokenizer.get_chat_template()
    return template


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
) -> list[int]:
    _template(tokenizer)
    # apply_chat_template tokenizes without adding special tokens: the template writes them all.
    encoded = tokenizer.apply_chat_template(
        list(messages),
        tokenize=True,
        return_dict=True,
        add_generation_prompt=add_generation_prompt,
    )
    return list(encoded["input_ids"])


def _check_prefix(
    tokenizer: PreTrainedTokenizerBase, prefix: Sequence[int], whole: Sequence[int]
) -> None:
    if list(whole[: len(prefix)]) == list(prefix):
        return
    at = next(
        (n for n, (a, b) in enumerate(zip(prefix, whole, strict=False)) if a != b), len(whole)
    )
    raise ModelError(
        "The chat template does not continue its own prompt: with the answer added, the tokens "
        f"differ from position {at} on, at {tokenizer.decode(prefix[at : at + 8])!r}. Training "
        "would see other tokens than generation does. Use a template that renders a prompt the "
        "same way with and without an answer (some drop reasoning or trim white space), saved as "
        "chat_template.jinja beside the model."
    )


def _up_to_the_end_token(
    tokenizer: PreTrainedTokenizerBase, response_ids: Sequence[int]
) -> list[int]:
    """Cut what a template writes after the end of a turn, such as a line break."""
    end = tokenizer.eos_token_id
    positions = [n for n, token in enumerate(response_ids) if token == end]
    return list(response_ids[: positions[-1] + 1]) if positions else list(response_ids)
