"""Steps of a build that add rewritten copies of training rows: paraphrase and back-translation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from plumbline.config import Check, only_when
from plumbline.data.records import Message, Row, user
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.writer import Writer, WriterEndpointConfig, check_one_writer
from plumbline.seeds import derive, rng
from sft.augmentation.kept_meaning import change_of_meaning
from sft.augmentation.step import MARK, TIER
from sft.cleaning.step import Outcome, RowFunction, Step, StepConfig, StepContext


class RewritingSamplingConfig(SamplingConfig):
    """How a model on this machine draws rewritten texts."""

    temperature: float = Field(0.7, gt=0)
    """Divides the logits."""
    max_new_tokens: int = Field(256, ge=1)
    """The longest text, in tokens; what is cut here is not kept."""


class RewritingConfig(StepConfig):
    """What rewrites the users' turns of training rows, and how often."""

    model: str | None = None
    """What rewrites: a run, a model's folder, a GGUF file, or a name of the hub. Null: the
    endpoint."""
    endpoint: WriterEndpointConfig | None = None
    """What rewrites, behind an OpenAI-compatible endpoint. It gets the users' turns. Its answers
    are kept by content, so a build that was killed asks for none twice."""
    sampling: RewritingSamplingConfig = only_when(
        lambda config: config.model is not None,
        "model (an endpoint has settings of its own)",
        RewritingSamplingConfig(),
    )
    """How a model on this machine draws."""
    copies: int = Field(1, ge=1, le=20)
    """Rewritten copies of each row."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the training rows that get copies, drawn at random."""

    @model_validator(mode="after")
    def _one_writer(self) -> RewritingConfig:
        check_one_writer(self.model, self.endpoint)
        return self

    def models(self) -> Sequence[str]:
        """Return the models that the step loads."""
        return () if self.model is None else (self.model,)

    def checks_before_work(self) -> Sequence[Check]:
        """Look for the endpoint's key."""
        return () if self.endpoint is None else self.endpoint.checks_before_work()


class ParaphraseConfig(RewritingConfig):
    """How copies are made by saying the same in other words."""

    step: Literal["paraphrase"] = "paraphrase"


class BackTranslationConfig(RewritingConfig):
    """How copies are made by translating and translating back."""

    step: Literal["back_translation"] = "back_translation"
    language: str = Field("French", min_length=2)
    """The language in between, by its English name."""


class Turn(NamedTuple):
    """A user's turn to rewrite, in one copy of a row."""

    row: int
    copy: int
    place: int
    text: str


_PARAPHRASE = (
    "Say the following in other words. Keep its meaning, its language, all names and all numbers. "
    "Reply with the new text alone.\n\n"
)
_TRANSLATE = "Translate the following into {language}. Reply with the translation alone.\n\n"
_BACK = "Translate the following from {language} into {own}. Reply with the translation alone.\n\n"


def paraphrased(
    writer: Writer, config: RewritingConfig, texts: Sequence[str], seeds: Sequence[int]
) -> list[str]:
    """Return texts in other words; empty ones where the writer gives none."""
    written = writer.write([[user(_PARAPHRASE + text)] for text in texts], seeds)
    return [entry.text for entry in written]


def translated_back(
    writer: Writer, config: BackTranslationConfig, texts: Sequence[str], seeds: Sequence[int]
) -> list[str]:
    """Return texts after a way through another language; empty ones where the writer fails."""
    there = _TRANSLATE.format(language=config.language)
    abroad = [entry.text for entry in writer.write([[user(there + t)] for t in texts], seeds)]
    open_ones = [n for n, text in enumerate(abroad) if text]
    prompts = [
        [user(_BACK.format(language=config.language, own=_own_language(texts[n])) + abroad[n])]
        for n in open_ones
    ]
    back = writer.write(prompts, [seeds[n] for n in open_ones])
    texts_back = {n: entry.text for n, entry in zip(open_ones, back, strict=True)}
    return [texts_back.get(n, "") for n in range(len(texts))]


def _own_language(text: str) -> str:
    return "Chinese" if any("\u3400" <= letter <= "\u9fff" for letter in text) else "English"


def with_copies(
    rows: Sequence[Row],
    config: RewritingConfig,
    data_seed: int,
    rewrite: Callable[[Sequence[str], Sequence[int]], list[str]],
) -> Iterator[Outcome]:
    """Yield each row with its rewritten copies; a copy whose meaning may have changed is left out.

    What the assistant says is learnt, so it stays as it is. ``rewrite`` returns new texts for texts
    and seeds.
    """
    turns = list(_turns_to_rewrite(rows, config, data_seed))
    seeds = [
        derive(data_seed, config.step, rows[t.row]["origin"], rows[t.row]["row"], t.copy, t.place)
        for t in turns
    ]
    texts: dict[tuple[int, int], dict[int, str]] = defaultdict(dict)
    for turn, text in zip(
        turns, rewrite([t.text for t in turns], seeds) if turns else (), strict=True
    ):
        texts[turn.row, turn.copy][turn.place] = text
    for number, row in enumerate(rows):
        changes: Counter[str] = Counter()
        copies: list[Row] = []
        for again in range(config.copies):
            new = texts.get((number, again), {})
            if not new:
                continue
            problem = _problem(row, new, copies)
            if problem is not None:
                changes[f"a copy by {config.step} was not kept: it {problem}"] += 1
                continue
            copies.append(_copy_of(row, new, config.step))
            changes[f"a copy was made by {config.step}"] += 1
        yield Outcome((row, *copies), changes=sorted(changes.elements()))


def _copy_of(row: Row, new: Mapping[int, str], mark: str) -> Row:
    """Return a row with other texts in some of its turns, marked."""
    messages = [
        turn if place not in new else {**turn, "content": new[place]}
        for place, turn in enumerate(row["messages"])
    ]
    return row | {"messages": messages, MARK: mark} | ({"tier": TIER} if "tier" in row else {})


def _turns_to_rewrite(
    rows: Sequence[Row], config: RewritingConfig, data_seed: int
) -> Iterator[Turn]:
    for number, row in enumerate(rows):
        chance = rng(data_seed, config.step, "chosen", row["origin"], row["row"]).random()
        if row.get(MARK) or chance >= config.share:
            continue
        for copy in range(config.copies):
            for place, turn in enumerate(row["messages"]):
                if turn["role"] == "user":
                    yield Turn(number, copy, place, turn["content"])


def _problem(row: Row, new: Mapping[int, str], copies: Sequence[Row]) -> str | None:
    """Return why a copy is not kept, None where each of its turns still means the same."""
    turns: Sequence[Message] = row["messages"]
    for place, text in new.items():
        problem = change_of_meaning(turns[place]["content"], text) if text else "got no text"
        if problem is not None:
            return problem
    for other in copies:
        if all(other["messages"][place]["content"] == text for place, text in new.items()):
            return "is another copy's text"
    return None


def _paraphrase(config: ParaphraseConfig, context: StepContext) -> RowFunction:
    writer = context.writer(config.model, config.endpoint, config.sampling)
    return lambda rows: with_copies(
        rows, config, context.data_seed, lambda t, s: paraphrased(writer, config, t, s)
    )


def _back_translation(config: BackTranslationConfig, context: StepContext) -> RowFunction:
    writer = context.writer(config.model, config.endpoint, config.sampling)
    return lambda rows: with_copies(
        rows, config, context.data_seed, lambda t, s: translated_back(writer, config, t, s)
    )


PARAPHRASE = Step(
    "paraphrase",
    "adds copies of training rows whose user's turns are in other words, by a model",
    ParaphraseConfig,
    _paraphrase,
    runs_in="main",
    makes_rows=True,
    example={"endpoint": {"model": "my-model"}},
)
BACK_TRANSLATION = Step(
    "back_translation",
    "adds copies of training rows whose user's turns went through another language, by a model",
    BackTranslationConfig,
    _back_translation,
    runs_in="main",
    makes_rows=True,
    example={"endpoint": {"model": "my-model"}, "language": "German"},
)
