"""The form of a campaign's datasets, and what a record of them shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from annotation.argilla.form import Field, Form
from annotation.questions.form_config import FormConfig
from annotation.questions.question import Side
from plumbline.data.records import Message
from plumbline.errors import ConfigError

LONGEST_GUIDELINES = 10_000
LONGEST_MESSAGE = 20_000
LONGEST_RESPONSE = 100_000
MOST_MESSAGES = 500

PROMPT, RESPONSE_A, RESPONSE_B, VOTES = "prompt", "response_a", "response_b", "votes"


def form_of(config: FormConfig, *, adjudication: bool = False) -> Form:
    """Return what the labellers of a campaign see and are asked."""
    markdown = config.argilla_markdown
    fields = [
        Field(PROMPT, "Conversation", "chat", markdown=markdown),
        Field(RESPONSE_A, "Response A", "text", markdown=markdown),
        Field(RESPONSE_B, "Response B", "text", markdown=markdown),
    ]
    if adjudication and config.show_votes:
        fields.append(Field(VOTES, "What others answered", "text", required=False))
    questions = tuple(part for question in config.questions() for part in question.form(config))
    return Form(tuple(fields), questions, guidelines(config))


def record_fields(
    prompt: Sequence[Message], a: str, b: str, shown_first: Side, votes: str | None = None
) -> dict[str, Any]:
    """Return what one record shows; ``shown_first`` is the response that is called A there."""
    first, second = (a, b) if shown_first == "a" else (b, a)
    shown: dict[str, Any] = {
        PROMPT: [{"role": turn["role"], "content": turn["content"]} for turn in prompt],
        RESPONSE_A: first,
        RESPONSE_B: second,
    }
    if votes is not None:
        shown[VOTES] = votes
    return shown


def problem_with_showing(prompt: Sequence[Message], responses: Sequence[str]) -> str | None:
    """Return what keeps a pair from being shown, or None where nothing does."""
    texts = [turn["content"] for turn in prompt]
    if len(prompt) > MOST_MESSAGES:
        return f"has a prompt of more than {MOST_MESSAGES} messages, which no page shows"
    if max(map(len, texts), default=0) > LONGEST_MESSAGE:
        return f"has a message of more than {LONGEST_MESSAGE} characters, which no page shows"
    if max(map(len, responses), default=0) > LONGEST_RESPONSE:
        return f"has a response of more than {LONGEST_RESPONSE} characters, which nobody reads"
    if any("\0" in text for text in (*texts, *responses)):
        return "has a NUL character, which databases refuse"
    return None


def guidelines(config: FormConfig) -> str:
    """Return the guidelines page: the campaign's own file, or one made for its questions."""
    if config.guidelines is None:
        return _default_guidelines(config)
    text = _read(config.guidelines).strip()
    if not text or len(text) > LONGEST_GUIDELINES:
        raise ConfigError(
            f"The guidelines in {config.guidelines} have {len(text)} characters; the page takes 1 "
            f"to {LONGEST_GUIDELINES}."
        )
    return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The guidelines {path} cannot be read: {error}.") from None


_OPENING = """\
# Which response is better?

You see a conversation and two responses to its last message. Say which response you would rather
get if you were the person who asked.

## What to do

1. Read the whole conversation, then **both** responses to the end.
2. Ask about each one: Does it do what the user asked for? Is it correct? Is it safe? Only after
   that: is it clear, and no longer than needed?
3. Choose.
"""
_WEIGHING = """\
## What counts most

- **Correct comes before pleasant.** A confident response that is wrong is worse than a plain one
  that is correct. If you cannot tell, look it up when that takes less than a minute. Otherwise
  judge the rest, and say so.
- **What was asked comes before extras.** Length is not a merit. Lists, headings and apologies are
  not merits either.
- **Harm outweighs help.** A response that helps somebody to hurt people, or makes light of it, is
  the worse one, however good the rest is. Refusing a harmless request is a fault too.
- **Use your own judgement.** There is nobody you have to agree with. Where people disagree, we
  want to know.
"""
_CLOSING = """\
## When something is wrong

Discard a pair that nobody can judge: broken text, or a language that you do not read. You can go
back and change an answer later. Take a break when the pairs begin to look alike.

Please do not talk with others about single pairs before everybody is done.
"""


def _default_guidelines(config: FormConfig) -> str:
    choice, *others = config.questions()
    lines = [line for question in others if (line := question.guideline(config))]
    more = "## The other questions\n\n" + "\n".join(lines) + "\n" if lines else ""
    parts = (_OPENING, choice.guideline(config), _WEIGHING, more, _CLOSING)
    return "\n".join(part for part in parts if part)
