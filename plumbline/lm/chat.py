"""From conversations to token ids and back: the one place where this is done.

A prompt's ids are what the chat template writes up to the start of the assistant's turn. A
response's ids are what the template writes of it, tokenised on its own, up to the token that ends
the turn. A conversation is its turns one after the other. So a model is trained on, and scored
on, exactly the ids that a policy is given and those that it produces.

Five things go wrong when every stage does this by itself, and are settled here:

- a beginning-of-sequence token twice, because the template writes it and the tokenizer adds it;
- a token across the border of prompt and response (a line break that merges with the next one),
  which no policy produces;
- a loss on what the user said, or none on the token that ends the response;
- a turn that ends with another token than the tokenizer's end token, so that nothing sampled ends;
- a response cut or hidden where the policy emits a special token in the middle of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from plumbline.data.records import Message, assistant, user
from plumbline.errors import ModelError
from plumbline.lm.chat_template import ConversationRefusedError as ConversationRefusedError
from plumbline.lm.chat_template import Tool, name_of, render
from plumbline.lm.token_batches import Encoder, encode_alone, encode_together, ids_inside, ids_of

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

#: Stands for a response where the text that a template puts around one is looked for.
_MARK = "ResponseStandsHere"


class EncodedResponse(NamedTuple):
    """A prompt and a response to it, which ends with the end token."""

    prompt_ids: list[int]
    response_ids: list[int]


class EncodedResponses(NamedTuple):
    """A prompt and several responses to it, each of which ends with the end token."""

    prompt_ids: list[int]
    responses: list[list[int]]


class EncodedTurns(NamedTuple):
    """Turns of a conversation in one sequence."""

    ids: list[int]
    assistant_mask: list[int]
    """1 where the assistant speaks, the tokens that end its turns included."""
    turns: list[int]
    """The number of the message that the assistant says there, -1 elsewhere."""


class TurnEnd(NamedTuple):
    """How a chat template ends the assistant's turn."""

    id: int
    """The token that ends it: the first special token after the response."""
    written: bool
    """Whether the template writes it. Where it writes none, we add the tokenizer's end token."""
    text: str
    """All that the template writes after the last response of a conversation."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> list[int]:
    """Return the ids of a prompt up to and with the start of the assistant's turn.

    Raises `ConversationRefusedError` where the template cannot write the prompt.
    """
    return encode_alone(tokenizer, ids_of(render(tokenizer, prompt, generation_prompt=True)))


def encode_response(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], response: str
) -> EncodedResponse:
    """Return the ids of a prompt and of a finished response, which ends with the end token.

    Each is tokenised on its own. Raises `ConversationRefusedError` where the template cannot write
    one of them.
    """
    prompt_ids, (ids,) = encode_alone(tokenizer, _responses(tokenizer, prompt, [response]))
    return EncodedResponse(prompt_ids, ids)


def encode_responses(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[tuple[Sequence[Message], Sequence[str]]]
) -> list[EncodedResponses | ConversationRefusedError]:
    """Return the ids of many prompts, each with several responses, or why one is refused."""
    return encode_together(
        tokenizer, [_responses(tokenizer, prompt, responses) for prompt, responses in rows]
    )


def scoring_problem(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> str | None:
    """Return why no response to a prompt can be scored; None where each can be."""
    try:
        encode_prompt(tokenizer, prompt)
    except ConversationRefusedError as error:
        return f"cannot be scored: {error}"
    return None


def encode_demonstration(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    last_turn_only: bool = False,
    tools: Sequence[Tool] = (),
) -> list[EncodedTurns]:
    """Return the ids of a conversation, and where in it the assistant speaks.

    Each turn of the assistant stands behind the very ids that a policy is given there. Turns whose
    prompt continues the turn before share one sequence, and mostly that is all of them. A template
    that writes earlier turns another way (some drop their reasoning) gets one sequence per turn.
    A turn of the weight 0 is shown and not learnt. ``last_turn_only`` returns the last turn that is
    learnt alone. ``tools``: functions that the assistant may call.

    What a turn calls and what it thought before are written as the template does. Raises
    `ConversationRefusedError` where the template would lose one of them.
    """
    return encode_alone(tokenizer, _demonstration(tokenizer, messages, last_turn_only, tools))


def encode_demonstrations(
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[tuple[Sequence[Message], Sequence[Tool]]],
    *,
    last_turn_only: bool = False,
) -> list[list[EncodedTurns] | ConversationRefusedError]:
    """Return the ids of many conversations with their tools, as `encode_demonstration` does.

    A row that the template refuses is its reason.
    """
    return encode_together(
        tokenizer,
        [_demonstration(tokenizer, messages, last_turn_only, tools) for messages, tools in rows],
    )


def _demonstration(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    last_turn_only: bool,
    tools: Sequence[Tool],
) -> Encoder[list[EncodedTurns]]:
    spoken = [
        number
        for number, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight") != 0
    ]
    sequences: list[EncodedTurns] = []
    for number in spoken[-1:] if last_turn_only else spoken:
        prompt = messages[:number]
        start = render(tokenizer, prompt, generation_prompt=True, tools=tools)
        prompt_ids = yield from ids_of(start)
        response_ids = yield from _turn_ids(tokenizer, prompt, messages[number], start, tools)
        before = sequences[-1] if sequences else EncodedTurns([], [], [])
        seen = len(before.ids)
        if seen and prompt_ids[:seen] == before.ids:
            sequences.pop()
        else:
            before, seen = EncodedTurns([], [], []), 0
        sequences.append(
            EncodedTurns(
                prompt_ids + response_ids,
                before.assistant_mask + [0] * (len(prompt_ids) - seen) + [1] * len(response_ids),
                before.turns + [-1] * (len(prompt_ids) - seen) + [number] * len(response_ids),
            )
        )
    return sequences


def encode_turns(
    tokenizer: PreTrainedTokenizerBase, before: Sequence[Message], turns: Sequence[Message]
) -> list[int]:
    """Return the ids between the end of a dialogue's last turn and the start of the next response.

    ``before`` ends with the assistant's turn, whose ids the caller has, the end token included;
    ``turns`` follow.
    """
    marked = [*before[:-1], assistant(_MARK), *turns]
    _, _, after = render(tokenizer, marked, generation_prompt=True).rpartition(_MARK)
    end, _, anchor = _facts(tokenizer)
    ids = encode_alone(tokenizer, ids_inside(tokenizer, after, anchor))
    return ids[ids.index(end.id) + 1 :] if end.written and end.id in ids else ids


def decode_response(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], end_ids: frozenset[int]
) -> str:
    """Return the text of a response without the token that ends it.

    Special tokens elsewhere in it stay visible, so that a judge sees them.
    """
    ids = list(ids)
    if ids and ids[-1] in end_ids:
        ids.pop()
    text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


def turn_end(tokenizer: PreTrainedTokenizerBase) -> TurnEnd:
    """Return how the tokenizer's chat template ends the assistant's turn.

    Often, but not always, with the tokenizer's end token: base models with a chat template may
    have ``<|endoftext|>`` for one and ``<|im_end|>`` for the other. Raises `ModelError` where the
    template does not write what the assistant says.
    """
    return _facts(tokenizer).end


def conversation_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that stand in a short conversation as the chat template writes it."""
    talk = [user("Hello"), assistant("Hello")]
    return {
        id
        for messages, asks in ((talk, False), (talk[:1], True))
        for id in encode_alone(
            tokenizer, ids_of(render(tokenizer, messages, generation_prompt=asks))
        )
    }


def end_token_ids(
    tokenizer: PreTrainedTokenizerBase, more: int | Sequence[int] | None = None
) -> frozenset[int]:
    """Return every id that ends a response: the tokenizer's, the template's and ``more``.

    ``more`` is what a model's generation config says; some models have several.
    """
    more = [more] if isinstance(more, int) else list(more or ())
    return frozenset([int(tokenizer.eos_token_id), turn_end(tokenizer).id, *more])


class _Facts(NamedTuple):
    """What is found out once about a tokenizer with its template."""

    end: TurnEnd
    opening: str
    """What the template writes before a response, such as an empty block for reasoning."""
    anchor: str | None
    """A special token behind which a text is tokenised as in the middle of a sequence."""


_known: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[str, int, _Facts]] = WeakKeyDictionary()


def _facts(tokenizer: PreTrainedTokenizerBase) -> _Facts:
    template, eos_id = str(tokenizer.chat_template), int(tokenizer.eos_token_id)
    known = _known.get(tokenizer)
    if known is None or known[:2] != (template, eos_id):
        known = _known[tokenizer] = template, eos_id, _find_facts(tokenizer, eos_id)
    return known[2]


def _find_facts(tokenizer: PreTrainedTokenizerBase, eos_id: int) -> _Facts:
    added = tokenizer.added_tokens_decoder
    # A token that swallows the spaces behind it would take them from the text.
    usable = eos_id in added and not added[eos_id].rstrip
    anchor = str(tokenizer.eos_token) if usable else None
    start = render(tokenizer, [user("Hello")], generation_prompt=True)
    text = render(tokenizer, [user("Hello"), assistant(_MARK)], generation_prompt=False)
    before, mark, after = text.rpartition(_MARK)
    if not mark:
        raise ModelError(
            "The chat template does not write what the assistant says, so nothing could be learnt. "
            "Save one that does beside the model, as chat_template.jinja."
        )
    special = {*added, *tokenizer.all_special_ids}
    ids = encode_alone(tokenizer, ids_inside(tokenizer, after, anchor))
    end = next((id for id in ids if id in special), None)
    return _Facts(
        TurnEnd(eos_id if end is None else int(end), written=end is not None, text=after),
        before[len(start) :] if before.startswith(start) else "",
        anchor,
    )


def _turn_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    message: Message,
    start: str,
    tools: Sequence[Tool],
) -> Encoder[list[int]]:
    """Return the ids of a turn of the assistant's, with its calls of tools and its reasoning."""
    thought, calls = message.get("reasoning_content"), message.get("tool_calls", ())
    if not thought and not calls:
        return (yield from _response_ids(tokenizer, prompt, message["content"], start, tools))
    written = _written_behind(tokenizer, prompt, message, start, tools)
    if written is None:
        raise ConversationRefusedError(
            "the chat template writes what stands before a turn another way once the turn calls "
            "tools or has reasoning, so what a policy would write there is not known"
        )
    if thought and thought.strip() not in written:
        raise ConversationRefusedError(
            "the chat template does not write the reasoning of a turn, which would be lost"
        )
    if calls and message["content"].strip() not in written:
        raise ConversationRefusedError(
            "the chat template does not write what a turn says beside its calls of tools"
        )
    if any(name_of(call) not in written for call in calls):
        raise ConversationRefusedError(
            "the chat template does not write calls of tools, which would be lost"
        )
    return (yield from _ended_ids(tokenizer, written))


def _responses(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], responses: Sequence[str]
) -> Encoder[EncodedResponses]:
    start = render(tokenizer, prompt, generation_prompt=True)
    encoded = EncodedResponses((yield from ids_of(start)), [])
    for response in responses:
        encoded.responses.append((yield from _response_ids(tokenizer, prompt, response, start)))
    return encoded


def _response_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    response: str,
    start: str,
    tools: Sequence[Tool] = (),
) -> Encoder[list[int]]:
    """Return the ids of a response as the template writes it behind ``start``."""
    end, opening, _ = _facts(tokenizer)
    if opening.strip():
        # A policy that learnt the opening writes it by itself, and is not to be given two.
        response = response.removeprefix(opening)
    written = _written_behind(tokenizer, prompt, assistant(response), start, tools)
    if written is None:  # the template writes the prompt another way once it is answered
        written = response + end.text
    return (yield from _ended_ids(tokenizer, written))


def _ended_ids(tokenizer: PreTrainedTokenizerBase, written: str) -> Encoder[list[int]]:
    """Return the ids of what the template writes of a turn, up to the token that ends it."""
    end, _, anchor = _facts(tokenizer)
    if not end.written:
        ids = yield from ids_inside(tokenizer, written.removesuffix(end.text), anchor)
        return [*ids, end.id]
    ids = yield from ids_inside(tokenizer, written, anchor)
    places = [place for place, id in enumerate(ids) if id == end.id]
    # What a template writes after the end of a turn, such as a line break, belongs to no turn.
    return ids[: places[-1] + 1] if places else [*ids, end.id]


def _written_behind(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    message: Message,
    start: str,
    tools: Sequence[Tool],
) -> str | None:
    """Return what the template writes behind ``start`` for a turn; None where it differs."""
    whole = render(tokenizer, [*prompt, message], generation_prompt=False, tools=tools)
    return whole[len(start) :] if whole.startswith(start) else None
