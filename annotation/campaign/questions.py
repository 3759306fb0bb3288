"""What a labeller sees and is asked, in words that bind us to no particular labelling site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from annotation.campaign.config import CampaignConfig
from plumbline.data.labels import Choice
from plumbline.data.records import Message
from plumbline.errors import ConfigError

Side = Literal["a", "b"]
LONGEST_GUIDELINES = 10_000
LONGEST_MESSAGE = 20_000
MOST_MESSAGES = 500

PROMPT, RESPONSE_A, RESPONSE_B, VOTES = "prompt", "response_a", "response_b", "votes"
CHOICE, STRENGTH, RATIONALE, FLAGS = "choice", "strength", "rationale", "flags"
STRENGTHS = {1: "slightly", 2: "clearly", 3: "much"}
_CHOICES = {
    "a": "A is better",
    "b": "B is better",
    "tie": "About the same",
    "both_bad": "Both are bad",
}
_ASPECT_CHOICES = {"a": "A", "b": "B", "tie": "No difference"}
_KNOWN_ASPECTS = {
    "helpful": "Which is more helpful?",
    "harmless": "Which is less harmful?",
    "honest": "Which is more honest?",
}


@dataclass(frozen=True)
class Field:
    """One text, or one conversation, that is shown."""

    name: str
    title: str
    kind: Literal["text", "chat"]
    required: bool = True
    markdown: bool = False


@dataclass(frozen=True)
class Question:
    """One thing that is asked. ``options`` are the values that are stored and the words shown."""

    name: str
    title: str
    kind: Literal["one", "some", "rating", "text"]
    options: tuple[tuple[str, str], ...] = ()
    required: bool = False
    description: str | None = None


@dataclass(frozen=True)
class Form:
    """Everything about a dataset but its records."""

    fields: tuple[Field, ...]
    questions: tuple[Question, ...]
    guidelines: str


def form_of(config: CampaignConfig, *, adjudication: bool = False) -> Form:
    """Return what the labellers of a campaign see and are asked."""
    fields = [
        Field(PROMPT, "Conversation", "chat", markdown=config.markdown),
        Field(RESPONSE_A, "Response A", "text", markdown=config.markdown),
        Field(RESPONSE_B, "Response B", "text", markdown=config.markdown),
    ]
    if adjudication and config.show_votes:
        fields.append(Field(VOTES, "What others said", "text", required=False))
    questions = [
        Question(CHOICE, "Which response is better?", "one", tuple(_CHOICES.items()), required=True)
    ]
    if config.strength:
        meaning = ", ".join(f"{number} {word}" for number, word in STRENGTHS.items())
        questions.append(
            Question(
                STRENGTH,
                "By how much?",
                "rating",
                tuple((str(number), word) for number, word in STRENGTHS.items()),
                description=f"{meaning}. Only where one is better.",
            )
        )
    for aspect in config.aspects:
        title = _KNOWN_ASPECTS.get(aspect, f"Which is more {aspect.replace('_', ' ')}?")
        questions.append(
            Question(aspect_question(aspect), title, "one", tuple(_ASPECT_CHOICES.items()))
        )
    if config.flags:
        options = tuple((flag, flag.replace("_", " ").capitalize()) for flag in config.flags)
        questions.append(Question(FLAGS, "Is there anything to report?", "some", options))
    if config.rationale:
        questions.append(Question(RATIONALE, "Why?", "text", description="A sentence is enough."))
    return Form(tuple(fields), tuple(questions), guidelines(config))


def aspect_question(aspect: str) -> str:
    """Return the name of the question about an aspect."""
    return f"aspect_{aspect}"


def content(
    prompt: Sequence[Message], a: str, b: str, shown_first: Side, votes: str | None = None
) -> dict[str, Any]:
    """Return what one item shows; ``shown_first`` is the response that is called A there."""
    first, second = (a, b) if shown_first == "a" else (b, a)
    shown: dict[str, Any] = {
        PROMPT: [{"role": turn["role"], "content": turn["content"]} for turn in prompt],
        RESPONSE_A: first,
        RESPONSE_B: second,
    }
    if votes is not None:
        shown[VOTES] = votes
    return shown


def unshown(choice: str, shown_first: Side) -> Choice:
    """Return an answer about the shown A and B as one about the pair's a and b.

    It is its own inverse: it also says what an answer about the pair is about what is shown.
    """
    if shown_first == "b" and choice in ("a", "b"):
        return "b" if choice == "a" else "a"
    return choice  # type: ignore[return-value]  # Label refuses what is no choice


def in_words(choice: Choice, strength: int | None) -> str:
    """Return an answer as its question words it: ``A is better (clearly)``."""
    return _CHOICES[choice] + (f" ({STRENGTHS[strength]})" if strength in STRENGTHS else "")


def problem_with_showing(prompt: Sequence[Message], responses: Sequence[str]) -> str | None:
    """Return what keeps a pair from being shown, or None where nothing does."""
    texts = [turn["content"] for turn in prompt]
    if len(prompt) > MOST_MESSAGES:
        return f"has a prompt of more than {MOST_MESSAGES} messages, which no page shows"
    if max(map(len, texts)) > LONGEST_MESSAGE:
        return f"has a message of more than {LONGEST_MESSAGE} characters, which no page shows"
    if any("\0" in text for text in (*texts, *responses)):
        return "has a NUL character, which databases refuse"
    return None


def guidelines(config: CampaignConfig) -> str:
    """Return the guidelines page: the campaign's own file, or one that fits its questions."""
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

You see a conversation and two answers to its last message. Say which answer you would rather have
been given, as the person who asked.

## How to go about it

1. Read the whole conversation, then **both** answers to the end.
2. Ask of each: does it do what was asked? Is it right? Is it safe? Only then: is it clear, and no
   longer than it needs to be?
3. Choose.

| Choose | when |
|---|---|
| **A is better** or **B is better** | you would rather have that one, even if only by a little |
| **About the same** | after a fair look you could not say which you would rather have |
| **Both are bad** | neither does what was asked, or both do harm |

Which answer is called A is decided by chance for every pair. It means nothing.
"""
_WEIGHING = """\
## What counts for how much

- **Right before pleasant.** A confident answer that is wrong is worse than a plain one that is
  right. Where you cannot tell, look it up if that takes less than a minute; otherwise judge the
  rest, and say so.
- **What was asked, before what is nice to have.** Length is no merit by itself, and neither are
  lists, headings or apologies.
- **Harm outweighs help.** An answer that helps somebody to hurt people, or makes light of it, is
  the worse one, however well it does it. Declining what is harmless is a fault too.
- **Your own judgement.** There is nobody to agree with. Where people differ, that is worth knowing.
"""
_CLOSING = """\
## When something is wrong

Discard a pair that cannot be judged at all: broken text, or a language you do not read. You may
change an answer afterwards under *Submitted*. Take a break when pairs begin to look alike.

Please do not talk with others about single pairs before all are done.
"""


def _default_guidelines(config: CampaignConfig) -> str:
    asked = []
    if config.strength:
        asked.append(
            "- **By how much?** 1: I had to weigh it up. 2: the difference is clear. 3: nobody "
            "would choose the other. Leave it empty where neither is better."
        )
    if config.aspects:
        names = ", ".join(aspect.replace("_", " ") for aspect in config.aspects)
        asked.append(
            f"- **Single aspects** ({names}): judge each by itself. The better answer need not be "
            "better on all of them."
        )
    if config.flags:
        names = ", ".join(flag.replace("_", " ") for flag in config.flags)
        asked.append(
            f"- **Anything to report?** ({names}) Tick what holds for either answer or for the "
            "conversation; then choose as well."
        )
    if config.rationale:
        asked.append(
            "- **Why?** One sentence naming what decided it: “B gives the wrong date” is worth "
            "more than “A is better written”."
        )
    more = "## The other questions\n\n" + "\n".join(asked) + "\n" if asked else ""
    return "\n".join(part for part in (_OPENING, _WEIGHING, more, _CLOSING) if part)
