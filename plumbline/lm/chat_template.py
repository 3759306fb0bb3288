"""What a chat template writes of a conversation, and what it may not leave out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from plumbline.data.records import Message
from plumbline.errors import ModelError
from plumbline.lm.time_limit import TimeLimitError, time_limit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: A function that the assistant may call, as OpenAI's format has it.
Tool = dict[str, Any]

#: What a template may stumble over in a message, besides what it refuses by itself.
_TEMPLATE_FAULTS = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError,
    MemoryError,
)  # fmt: skip
#: A template that takes longer to write a conversation than this does not end.
TEMPLATE_SECONDS = 10.0
#: After so many conversations for which a template did not end, it is refused.
_MOST_WITHOUT_END = 3
_without_end: WeakKeyDictionary[PreTrainedTokenizerBase, int] = WeakKeyDictionary()


class ConversationRefusedError(ModelError):
    """A chat template cannot write a conversation. The row can be left out, with these words."""


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    generation_prompt: bool,
    tools: Sequence[Tool] = (),
) -> str:
    """Return what the template writes of messages. Raises `ConversationRefusedError`."""
    from jinja2.exceptions import TemplateError

    if not tokenizer.chat_template:
        raise ModelError(
            "The tokenizer has no chat template. Load it with "
            "plumbline.lm.tokenizer.load_tokenizer, which gives it one, or save one beside the "
            "model as chat_template.jinja."
        )
    try:
        with time_limit(TEMPLATE_SECONDS):
            text = str(
                tokenizer.apply_chat_template(
                    [_as_templates_read(message) for message in messages],
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=generation_prompt,
                )
            )
    except TimeLimitError:
        raise _did_not_end(tokenizer) from None
    except (TemplateError, *_TEMPLATE_FAULTS) as error:
        raise ConversationRefusedError(f"the chat template refuses it: {error}") from None
    _refuse_losses(messages, tools, text)
    return text


def name_of(tool: Tool) -> str:
    """Return the name of a function, or of the one that is called."""
    function = tool.get("function", tool)
    return str(function.get("name", ""))


def _as_templates_read(message: Message) -> dict[str, Any]:
    """Return a message as chat templates expect it: arguments of calls as objects, no weight."""
    written: dict[str, Any] = {name: held for name, held in message.items() if name != "weight"}
    if message.get("tool_calls"):
        written["tool_calls"] = [_with_arguments(call) for call in message["tool_calls"]]
    return written


def _with_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call with its arguments as an object, where their JSON is one."""
    function = call["function"]
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _refuse_losses(messages: Sequence[Message], tools: Sequence[Tool], text: str) -> None:
    """Refuse what a template wrote where it left out what others said, or tools.

    Reasoning of earlier turns may be dropped.
    """
    for number, message in enumerate(messages, 1):
        if message["role"] != "assistant" and not _holds(text, message["content"].strip()):
            raise ConversationRefusedError(
                f"the chat template leaves out message {number} (of the role {message['role']!r})"
            )
        if any(name_of(call) not in text for call in message.get("tool_calls", ())):
            raise ConversationRefusedError(
                "the chat template does not write calls of tools, which would be lost"
            )
    missing = [name_of(tool) for tool in tools if name_of(tool) not in text]
    if missing:
        raise ConversationRefusedError(
            f"the chat template does not write the tools that may be called ({missing[0]})"
        )


def _holds(text: str, content: str) -> bool:
    """Return whether a text holds a content as it is, or as JSON writes it."""
    return content in text or any(
        json.dumps(content, ensure_ascii=escaped)[1:-1] in text for escaped in (True, False)
    )


def _did_not_end(tokenizer: PreTrainedTokenizerBase) -> ModelError:
    """Return the error of a row, or that of the template where the next rows would take as long."""
    _without_end[tokenizer] = _without_end.get(tokenizer, 0) + 1
    what = f"did not end in {TEMPLATE_SECONDS:.0f} seconds"
    if _without_end[tokenizer] < _MOST_WITHOUT_END:
        return ConversationRefusedError(f"the chat template {what}")
    return ModelError(
        f"The chat template {what} for {_MOST_WITHOUT_END} conversations. Fix it, or give another: "
        "chat_template.jinja beside the model."
    )
