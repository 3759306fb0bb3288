"""Formats in which a row compares responses to one prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from plumbline.data.format import AROUND, MEANINGFUL, Format, Names, derived
from plumbline.data.messages import is_missing, kind_of, messages_from, structure_from
from plumbline.data.part_values import Parts, number_in, number_or_none, truth_of
from plumbline.data.records import assistant, user
from plumbline.data.verdicts import strength_of, verdict_of, with_verdict

_PAIR = derived(("a", "b"), of=("chosen", "rejected"))
_BETTER = (
    *derived(("chosen", "rejected"), of=("a", "b", "verdict")),
    *derived(("prompt",), of=("a", "b")),
)
_SUBSET: Names = {"subset": ("subset", "category")}
_ASKED = ("prompt", "instruction", "question", "query", "conversations", "conversation", "messages")


def _two(column: str) -> Any:
    def read(parts: dict[str, Any]) -> Parts:
        sides = {k: held for k, held in parts.items() if k != "verdict"}
        if isinstance(sides.get("prompt"), Mapping):  # WebGPT: {"full_text": …}
            sides["prompt"] = sides["prompt"].get("full_text")
        verdict = parts.get("verdict")
        if is_missing(verdict):
            return sides
        better = verdict_of(column, verdict)
        strength = strength_of(column, verdict)  # a graded label is kept as the margin
        graded = {} if strength is None else {"margin": strength}
        return with_verdict({**sides, **graded}, better)

    return read


def _preferred(parts: dict[str, Any]) -> Parts | Sequence[Parts]:
    """Read chosen and rejected; where either is a list of texts (RewardBench 2), every pair.

    A text that is itself a list in JSON is a response: questions may ask for one.
    """
    sides = [parts[name] for name in ("chosen", "rejected") if name in parts]
    lists = [s for s in sides if isinstance(s, list) and s and all(isinstance(t, str) for t in s)]
    if len(sides) == 2 and lists:
        better, worse = (side if side in lists else [side] for side in sides)
        return [
            as_pair(parts | {"chosen": good, "rejected": bad})
            for good, bad in product(better, worse)
        ]
    return as_pair(parts)


def as_pair(parts: dict[str, Any]) -> Parts:
    """Let chosen and rejected be a and b, for people to compare again."""
    sides = {"a": parts.get("chosen"), "b": parts.get("rejected")}
    return {name: held for name, held in sides.items() if held is not None} | parts


def _last_rejected(parts: dict[str, Any]) -> Parts:
    """Read ms-swift: the dialogue's last response is chosen, another one stands beside it."""
    turns = messages_from(parts["messages"])
    if not turns or turns[-1]["role"] != "assistant":
        raise ValueError("'messages' does not end with the assistant's turn")
    rest = {name: held for name, held in parts.items() if name != "messages"}
    return as_pair(rest | {"prompt": turns[:-1], "chosen": turns[-1:]})


def _ranked(parts: dict[str, Any]) -> Parts:
    """Compare the best of several responses with the worst, by their rank or score."""
    responses = structure_from(parts["responses"])
    if not isinstance(responses, list):
        raise ValueError(f"has {kind_of(responses)} where a list of responses belongs")
    placed = []
    for number, response in enumerate(responses, 1):
        if not isinstance(response, Mapping):
            raise ValueError(f"has {kind_of(response)} as response {number}, not an object")
        text = next((response[k] for k in ("response", "answer", "text") if k in response), None)
        place = _place_of(response)
        if isinstance(text, str) and place is not None:
            placed.append((place, text))
    if len(placed) < 2:
        raise ValueError("has fewer than two responses with a rank or score")
    best, worst = max(placed, key=lambda p: p[0]), min(placed, key=lambda p: p[0])
    sides = {k: held for k, held in parts.items() if k != "responses"} | {
        "a": best[1],
        "b": worst[1],
    }
    return with_verdict(sides, "a" if best[0] > worst[0] else "tie")


def _place_of(response: Mapping[str, Any]) -> float | None:
    """Return a number that is larger for a better response, of its rank or score."""
    for key in ("rank", "overall_score", "fine-grained_score", "score"):
        number = number_or_none(response.get(key))
        if number is not None:
            return -number if key == "rank" else number
    return None


def _arena(parts: dict[str, Any]) -> Parts:
    """Read arena battles: one of three columns is 1; several turns stand as lists in JSON."""
    won = [name for name in ("first", "second", "neither") if truth_of(parts.get(name))]
    sides: dict[str, Any] = {k: parts[k] for k in ("prompt", "a", "b", "id") if k in parts}
    questions, a, b = (structure_from(sides.get(name)) for name in ("prompt", "a", "b"))
    if all(isinstance(texts, list) for texts in (questions, a, b)):
        for name, texts in (("a", a), ("b", b)):
            if len(texts) != len(questions):
                raise ValueError(f"has {len(texts)} responses ({name}) to {len(questions)} prompts")
            turns = [
                t for q, r in zip(questions, texts, strict=True) for t in (user(q), assistant(r))
            ]
            sides[name] = [dict(turn, content=str(turn["content"] or "")) for turn in turns]
        del sides["prompt"]
    verdicts = {"first": "a", "second": "b", "neither": "tie"}
    return with_verdict(sides, verdicts[won[0]]) if len(won) == 1 else sides


def _summaries(parts: dict[str, Any]) -> Parts:
    """Read OpenAI's comparisons of summaries: a post, two summaries, and which is better."""
    info, summaries = structure_from(parts["prompt"]), structure_from(parts["responses"])
    post = info.get("post") or info.get("article")
    texts = [s.get("text") for s in summaries if isinstance(s, Mapping)]
    if not isinstance(post, str) or len(texts) != 2:
        raise ValueError("has no post, or not two summaries")
    title = info.get("title")
    prompt = f"{title}\n\n{post}" if isinstance(title, str) and title.strip() else post
    sides = {"prompt": prompt, "a": texts[0], "b": texts[1]}
    return (
        with_verdict(sides, verdict_of("choice", parts["verdict"])) if "verdict" in parts else sides
    )


def _scored(parts: dict[str, Any]) -> Parts:
    """Read two responses with a score each (WebGPT)."""
    sides = {k: held for k, held in parts.items() if k not in ("first", "second")}
    if isinstance(sides.get("prompt"), Mapping):
        sides["prompt"] = sides["prompt"].get("full_text")
    first, second = number_in(parts, "first"), number_in(parts, "second")
    if first is None or second is None:
        return sides
    return with_verdict(sides, "tie" if first == second else "a" if first > second else "b")


def _two_responses(name: str, about: str, column: str, names: Names, example: Any) -> Format:
    """Make the format of two responses and a column that says which is better."""
    return Format(
        name,
        about,
        {**names, "verdict": (column,), "system": MEANINGFUL["system"], **_SUBSET},
        marks=("a", "b", "verdict"),
        derives=_BETTER,
        read=_two(column),
        example=example,
    )


COMPARISONS = (
    Format(
        "preference",
        "TRL, Anthropic HH, UltraFeedback, LLaMA-Factory, RewardBench: chosen and rejected, as "
        "text, messages or whole dialogues, with or without a prompt beside them",
        {
            "prompt": _ASKED,
            "input": ("input",),
            "context": MEANINGFUL["context"],
            "chosen": ("chosen", "pos_resp", "accepted"),
            "rejected": ("rejected", "neg_resp"),
            "margin": ("margin",),
            **AROUND,
            **_SUBSET,
            "id": ("pair_id",),
            "answer": ("answer",),
            "reasons": ("reasons",),
        },
        marks=("chosen", "rejected"),
        derives=(*_PAIR, *derived(("prompt",), of=("chosen", "rejected"))),
        read=_preferred,
        example={"prompt": "Name a colour", "chosen": "Red", "rejected": "No"},
    ),
    Format(
        "rejected_response",
        "ms-swift: messages, and another response that is worse than their last",
        {
            "messages": ("messages", "conversations"),
            "rejected": ("rejected_response", "rejected_messages"),
            **AROUND,
        },
        marks=("messages", "rejected"),
        derives=derived(("prompt", "chosen", "a", "b"), of=("messages",)),
        read=_last_rejected,
        example={
            "messages": [
                {"role": "user", "content": "Name a colour"},
                {"role": "assistant", "content": "Red"},
            ],
            "rejected_response": "No",
        },
    ),
    _two_responses(
        "better_response",
        "PKU-SafeRLHF: two responses and the number of the better one",
        "better_response_id",
        {"prompt": ("prompt",), "a": ("response_0",), "b": ("response_1",)},
        {
            "prompt": "Name a colour",
            "response_0": "Red",
            "response_1": "No",
            "better_response_id": 0,
        },
    ),
    _two_responses(
        "preference_strength",
        "HelpSteer2: two responses and how much better the second is",
        "preference_strength",
        {"prompt": ("prompt",), "a": ("response_1",), "b": ("response_2",)},
        {
            "prompt": "Name a colour",
            "response_1": "Red",
            "response_2": "No",
            "preference_strength": -2,
        },
    ),
    _two_responses(
        "overall_preference",
        "HelpSteer3: a dialogue, two responses, and how much better the second is",
        "overall_preference",
        {"prompt": ("context",), "a": ("response1",), "b": ("response2",)},
        {
            "context": [{"role": "user", "content": "Name a colour"}],
            "response1": "Red",
            "response2": "No",
            "overall_preference": -2,
        },
    ),
    _two_responses(
        "winner",
        "Chatbot Arena: two conversations and which model won",
        "winner",
        {
            "prompt": ("prompt", "instruction", "question"),
            "a": ("conversation_a", "response_a", "output_a", "a"),
            "b": ("conversation_b", "response_b", "output_b", "b"),
            "id": ("question_id", "id"),
        },
        {
            "conversation_a": [
                {"role": "user", "content": "Name a colour"},
                {"role": "assistant", "content": "Red"},
            ],
            "conversation_b": [
                {"role": "user", "content": "Name a colour"},
                {"role": "assistant", "content": "No"},
            ],
            "winner": "model_a",
        },
    ),
    Format(
        "arena_battle",
        "Chatbot Arena's competition files: 1 in winner_model_a, winner_model_b or winner_tie",
        {
            "prompt": ("prompt",),
            "a": ("response_a",),
            "b": ("response_b",),
            "first": ("winner_model_a",),
            "second": ("winner_model_b",),
            "neither": ("winner_tie",),
            "id": ("id",),
        },
        marks=("prompt", "a", "b", "first", "second"),
        derives=(
            *derived(("chosen", "rejected"), of=("a", "b", "first", "second")),
            *derived(("chosen", "rejected"), of=("neither",)),
        ),
        read=_arena,
        example={
            "prompt": '["Name a colour"]',
            "response_a": '["Red"]',
            "response_b": '["No"]',
            "winner_model_a": 1,
            "winner_model_b": 0,
            "winner_tie": 0,
        },
    ),
    Format(
        "shp",
        "Stanford Human Preferences: a post and two comments; labels is 1 where A is preferred",
        {
            "prompt": ("history",),
            "a": ("human_ref_A",),
            "b": ("human_ref_B",),
            "verdict": ("labels",),
            "subset": ("domain",),
            "id": ("post_id",),
        },
        marks=("prompt", "a", "b"),
        derives=_BETTER,
        read=_two("labels"),
        example={
            "history": "Name a colour",
            "human_ref_A": "Red",
            "human_ref_B": "No",
            "labels": 1,
        },
    ),
    Format(
        "scored_pair",
        "WebGPT comparisons: two responses with a score each",
        {
            "prompt": ("question", "prompt"),
            "a": ("answer_0",),
            "b": ("answer_1",),
            "first": ("score_0",),
            "second": ("score_1",),
        },
        marks=("prompt", "a", "b"),
        derives=derived(("chosen", "rejected"), of=("a", "b", "first", "second")),
        read=_scored,
        example={
            "question": {"full_text": "Name a colour"},
            "answer_0": "Red",
            "answer_1": "No",
            "score_0": 1.0,
            "score_1": -1.0,
        },
    ),
    Format(
        "summaries",
        "OpenAI's summarize-from-feedback: a post, two summaries and the choice",
        {"prompt": ("info",), "responses": ("summaries",), "verdict": ("choice",)},
        marks=("prompt", "responses"),
        derives=(
            *derived(("a", "b"), of=("responses",)),
            *derived(("chosen", "rejected"), of=("responses", "verdict")),
        ),
        read=_summaries,
        example={
            "info": {"title": "Colours", "post": "Red is nice."},
            "summaries": [{"text": "Red."}, {"text": "No."}],
            "choice": 0,
        },
    ),
    Format(
        "ranked_responses",
        "UltraFeedback's raw files, Nectar: several responses with ranks or scores; the best "
        "against the worst",
        {
            "prompt": ("prompt", "instruction", "question"),
            "responses": ("completions", "answers", "responses"),
            "system": MEANINGFUL["system"],
        },
        marks=("prompt", "responses"),
        holds=lambda record: any(
            isinstance(held, list) and held and isinstance(held[0], Mapping)
            for held in (
                structure_from(record.get(n)) for n in ("completions", "answers", "responses")
            )
        ),
        derives=derived(("a", "b", "chosen", "rejected"), of=("responses",)),
        read=_ranked,
        example={
            "instruction": "Name a colour",
            "completions": [
                {"response": "Red", "overall_score": 8.0},
                {"response": "No", "overall_score": 2.0},
            ],
        },
    ),
    Format(
        "pair",
        "Plumbline's pairs to label, PandaLM: two responses, a and b, with the known answer of "
        "a gold item",
        {
            "prompt": _ASKED,
            "input": ("input",),
            "a": ("a", "response_a", "response1", "response_1", "output_1", "answer_a"),
            "b": ("b", "response_b", "response2", "response_2", "output_2", "answer_b"),
            "answer": ("answer",),
            "reasons": ("reasons",),
            "id": ("pair_id",),
            "system": MEANINGFUL["system"],
            "media": MEANINGFUL["media"],
        },
        marks=("a", "b"),
        derives=derived(("prompt",), of=("a", "b")),
        example={"pair_id": "1", "prompt": "Name a colour", "a": "Red", "b": "No"},
    ),
)
