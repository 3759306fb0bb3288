"""Forms of questions: which part of a sentence each asks about, and which part answers it.

A sentence such as *If the owner goes out of scope, the value is dropped* has a condition and what
follows from it. A question of the form *What happens if* asks about the condition, and what follows
answers it. So a question can be held against the part that it asks about: one that takes words from
the other part, or from nowhere, is not answered by the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sft.documents.document import content_words, is_chinese


@dataclass(frozen=True)
class QuestionForm:
    """How a question begins, and the parts of sentences that it fits."""

    start: str
    """The question's first words; what it is written in follows from them."""
    patterns: tuple[re.Pattern[str], ...]
    """A sentence has this form where one of them matches, with the parts ``topic``, ``answer``."""
    examples: tuple[tuple[str, str], ...]
    """Sentences, each with a question of this form, to show to a model."""


class Fit(NamedTuple):
    """A form that a sentence has."""

    form: QuestionForm
    topic: str
    """The part that a question of this form asks about."""
    answer: str
    """The part that answers it."""


def _all(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern) for pattern in patterns)


_DO = (
    r"(?:you |we |they )?(?:can|could|should|must|may|will need to|need to|have to|may need to)\b"
    r"|(?:press|mark|use|check|click|choose|select|leave|type|write|try|call|pass|rate|pick|do|don.t)\b"
)
ENGLISH: Sequence[QuestionForm] = (
    QuestionForm(
        "What should you do if",
        _all(
            rf"\b[Ii]f (?P<topic>you [^,;:]+), (?P<answer>(?:{_DO}).+)",
            rf"^(?P<answer>(?:You |{_DO}).{{8,}}) if (?P<topic>you [^,;:]+)[.!]$",
        ),
        (
            (
                "If you smell gas in the kitchen, open the window and leave the house.",
                "What should you do if you smell gas in the kitchen?",
            ),
            (
                "You can call the front desk if you lose your key.",
                "What should you do if you lose your key?",
            ),
        ),
    ),
    QuestionForm(
        "What happens if",
        _all(
            r"(?:^|[:;,] )[Ii]f (?P<topic>[^,;:]+(?:, or [^,]+,[^,]+)?), (?P<answer>.+)",
            r"^(?P<answer>.{15,}?),? if (?P<topic>[^;:]+)[.!]$",
        ),
        (
            (
                "If the temperature falls below zero, the heating starts by itself.",
                "What happens if the temperature falls below zero?",
            ),
            (
                "The door locks itself if nobody has opened it for an hour.",
                "What happens if nobody has opened the door for an hour?",
            ),
        ),
    ),
    QuestionForm(
        "What happens when",
        _all(
            r"(?:^|[:;,] |that )[Ww]hen (?P<topic>[^,;:]+), (?P<answer>.+)",
            r"^(?P<answer>.{15,}?),? (?:when|once) (?P<topic>[^;:]+)[.!]$",
            r"(?:^|[:;,] )Once (?P<topic>[^,;:]+), (?P<answer>.+)",
        ),
        (
            (
                "When the train reaches the bridge, a bell rings in the station.",
                "What happens when the train reaches the bridge?",
            ),
            (
                "The lamp turns red when the battery is almost empty.",
                "What happens when the battery is almost empty?",
            ),
        ),
    ),
    QuestionForm(
        "Why",
        _all(
            r"^(?P<topic>.{10,}?),? because (?!of\b)(?P<answer>.+)",
            r"^Because (?P<answer>[^,]{10,}), (?P<topic>.+)",
            r"^(?!If\b|When\b)(?P<answer>.{15,}?), so (?!that\b|here\b|we (?:can|.ll)\b|we.ll\b)"
            r"(?P<topic>[^,;]{10,})[.!]$",
            r"^(?P<topic>.{15,}?) so that (?P<answer>.+)",
        ),
        (
            (
                "The bridge was closed because its cables had begun to rust.",
                "Why was the bridge closed?",
            ),
            (
                "Bees cannot see red, so red flowers are visited by birds.",
                "Why are red flowers visited by birds?",
            ),
        ),
    ),
    QuestionForm(
        "What is",
        _all(
            r"^(?P<topic>(?:An? |The )?[\w'’&* -]{2,45}?) is "
            r"(?P<answer>(?:an?|the|any\w*|how) .{12,})",
            r"^(?P<topic>(?:An? |The )?[\w'’&* -]{2,45}?) is "
            r"(?P<answer>(?:sometimes )?(?:called|made up of|made of|known as) .{10,})",
        ),
        (
            (
                "A thermostat is a device that keeps the temperature of a room steady.",
                "What is a thermostat?",
            ),
            (
                "The tide is the rise and fall of the sea that the moon causes.",
                "What is the tide?",
            ),
        ),
    ),
    QuestionForm(
        "How",
        _all(
            r"^(?P<topic>.{12,}?),? (?P<answer>by (?:using|calling|\w+ing) .{8,})",
            r"^(?P<topic>.{6,}? (?:is|are) \w+ed) (?P<answer>(?:by|through|with) .{10,})",
            r"^(?P<topic>.{12,}?),? (?P<answer>(?:using|with) the [\w&* -]+ "
            r"(?:function|method|operator|keyword|command|button|syntax|key|tool|option)s?\b.*)",
            r"^To (?P<topic>[^,]{8,}), (?P<answer>(?:you|we) .{12,}|(?:use|press|mark|call) .{8,})",
        ),
        (
            (
                "Bees tell each other where flowers are by dancing in the hive.",
                "How do bees tell each other where flowers are?",
            ),
            (
                "To open the valve, you turn the red handle to the left.",
                "How do you open the valve?",
            ),
        ),
    ),
    QuestionForm(
        "When",
        _all(
            r"^(?P<topic>.{15,}?),? (?P<answer>(?:when|once|until|as soon as) [^,;:]{10,})[.!]$",
            r"^(?P<answer>When [^,;:]{10,}), (?P<topic>[^;:]{12,})[.!]$",
        ),
        (
            (
                "A bell rings in the station when the train reaches the bridge.",
                "When does a bell ring in the station?",
            ),
            (
                "When the lake is frozen, the ferry stays in the harbor.",
                "When does the ferry stay in the harbor?",
            ),
        ),
    ),
    QuestionForm(
        "Where",
        _all(
            r"^(?P<topic>.{6,}? (?:is|are|be) (?:\w+ )?(?:stored|kept|placed|put|located|found"
            r"|saved|written|allocated))(?: \w+)? (?P<answer>(?:on|in|at|into|to) .{4,})",
        ),
        (
            (
                "Old maps of the city are kept in the cellar of the library.",
                "Where are old maps of the city kept?",
            ),
            (
                "The key to the garden is stored in a box behind the door.",
                "Where is the key to the garden stored?",
            ),
        ),
    ),
    QuestionForm(
        "What can",
        _all(
            r"^(?P<topic>[\w'’ -]{8,70}?) can (?P<answer>(?:lead to|cause|result in|create) .{8,})"
        ),
        (
            (
                "Leaving the oven open can lead to a fire in the kitchen.",
                "What can leaving the oven open lead to?",
            ),
            ("Heavy rain can cause floods in the old town.", "What can heavy rain cause?"),
        ),
    ),
    QuestionForm(
        "What must",
        _all(
            r"^(?P<topic>[\w'’ -]{8,70}?) must "
            r"(?P<answer>(?:have|be|occur|hold|contain|follow) .{6,})"
        ),
        (
            (
                "All guests of the hotel must have a valid passport.",
                "What must all guests of the hotel have?",
            ),
            (
                "Every letter must contain the name of the sender.",
                "What must every letter contain?",
            ),
        ),
    ),
    QuestionForm(
        "What does",
        _all(
            r"^(?P<topic>(?:The |An? )?(?:[\w'’&-]+ ){0,5}?[\w'’&-]+) "
            r"(?P<answer>(?:returns|stores|allows|lets?|ensures?|prevents?|guarantees|contains|provides|requires|means|enables|calls"
            r"|uses|considers|refers|finds|keeps|affects|indicates|checks|creates|causes?|makes?"
            r"|represents|holds) .{10,})",
        ),
        (
            (
                "The north tower holds the bells that ring at noon.",
                "What does the north tower hold?",
            ),
            (
                "A passport allows its owner to enter other countries.",
                "What does a passport allow?",
            ),
        ),
    ),
)
CHINESE: Sequence[QuestionForm] = (
    QuestionForm(
        "为什么",
        _all(
            r"因为(?P<answer>[^，,]+)[，,](?:所以)?(?P<topic>.+)",
            r"^(?P<topic>.+)是?因为(?P<answer>.+)",
        ),
        (("因为缆索生锈，这座桥禁止卡车通行。", "为什么这座桥禁止卡车通行？"),),
    ),
    QuestionForm(
        "如果",
        _all(r"如果(?P<topic>[^，,]+)[，,](?P<answer>.+)"),
        (("如果温度低于零度，暖气会自动打开。", "如果温度低于零度会怎样？"),),
    ),
    QuestionForm(
        "什么是",
        _all(
            r"^(?P<topic>[^，,是]{1,12})是(?P<answer>.+)",
            r"^(?P<topic>[^，,指]{1,12})指(?P<answer>.+)",
        ),
        (("恒温器是使房间温度保持稳定的装置。", "什么是恒温器？"),),
    ),
    QuestionForm(
        "怎样",
        _all(
            r"^(?P<topic>.+?)(?P<answer>通过.+)",
            r"^(?P<answer>.*?用.{1,8}?)(?P<topic>[\u3400-\u9fff]{4,})",
        ),
        (("蜜蜂用舞蹈告诉同伴花在哪个方向。", "怎样告诉同伴花在哪个方向？"),),
    ),
)
FORMS: Sequence[QuestionForm] = (*ENGLISH, *CHINESE)
#: A part that names nothing.
_PRONOUN = re.compile(
    r"^(?:it|they|this|that|these|those|he|she|there|here|its|their)\b", re.IGNORECASE
)
#: A condition that does not say who does something.
_NOBODY = re.compile(r"^\w+ing\b")
#: Subjects that name nothing.
_NOTHING = re.compile(
    r"^(?:(?:Because|When|If|Once|Although|While|On|In|At|By|With|To|For|From|Of|As)\b"
    r"|(?:The |An? )?(?:\w+ )?(?:reason|problem|result|answer|way|following|difference|benefit"
    r"|point|example|goal|job|idea|case|one|inverse|rest|other|thing|it|he|she|they|this|that"
    r"|there|what|which|who)\b)|\b(?:that|there|it|which|won.t|does|can|not)$",
    re.IGNORECASE,
)
_NAMING = ("What is", "What does", "Where", "What can", "What must")
#: Words before a part that do not belong to it.
_CONNECTIVE = re.compile(
    r"^(?:(?:However|Comparatively|Therefore|Otherwise|Instead|Also|So|But|Likewise|Luckily|First"
    r"|Next|Note|Earlier|Recall)[,:]? |In other words, |By the same token, |Examples? )+"
)
#: Where a condition ends and something else begins.
_BEYOND = re.compile(r", (?:because|so|but|and then|you|we|they|which|just as)\b")
#: Behind these words *if* and *when* begin no condition.
_NO_CONDITION = re.compile(
    r"\b(?:uncertain|unsure|sure|identify|understanding|know|tell|see|check|decide|those)$"
)


def fits_of(sentence: str) -> list[Fit]:
    """Return the forms that a sentence has, the surest first, each with the parts of the sentence.

    A part must say something: two words with meaning or more in the answer, and one in the topic.
    """
    fits = []
    for form in CHINESE if is_chinese(sentence) else ENGLISH:
        match = next(filter(None, (pattern.search(sentence) for pattern in form.patterns)), None)
        fit = None if match is None else _parted(form, match["topic"], match["answer"])
        if fit is not None:
            fits.append(fit)
    # Who is told what to do if something happens is asked that, and not what happens.
    if any(fit.form.start == "What should you do if" for fit in fits):
        fits = [fit for fit in fits if fit.form.start != "What happens if"]
    return fits


def _parted(form: QuestionForm, topic: str, answer: str) -> Fit | None:
    """Return a fit with both parts cut to what belongs to them; None where one says nothing."""
    topic, answer = _CONNECTIVE.sub("", topic.strip()), answer.strip()
    beyond = _BEYOND.search(topic) if form.start.startswith("What happens") else None
    if beyond is not None:
        topic, answer = topic[: beyond.start()], f"{answer} {topic[beyond.start() + 2 :]}"
    topic = re.split(r"[:;] (?=[A-Za-z])", topic)[-1].rstrip(".!")
    nothing = _NOTHING if form.start in _NAMING else _PRONOUN
    new = set(content_words(answer)) - set(content_words(topic))
    if (
        not content_words(topic)
        or len(new) < 2
        or nothing.search(topic)
        or _NO_CONDITION.search(answer)
        or (form.start.startswith("What happens") and _NOBODY.match(topic))
        or (form.start == "How" and topic.startswith("Because"))
    ):
        return None
    return Fit(form, topic, answer)


def request_for(sentence: str, form: QuestionForm) -> str:
    """Return a text that a model continues with the rest of a question.

    Examples of the form and the sentence, then the question's beginning. A small model continues
    examples far better than it follows an instruction.
    """
    names = ("句子：", "问题：") if form in CHINESE else ("Sentence: ", "Question: ")
    shown = [
        f"{names[0]}{sentence_shown}\n{names[1]}{question}\n\n"
        for sentence_shown, question in form.examples
    ]
    return f"{''.join(shown)}{names[0]}{sentence}\n{names[1]}{form.start}"
