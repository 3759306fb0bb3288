"""What may vary in making questions from documents."""

from __future__ import annotations

from pydantic import Field, model_validator

from plumbline.config import Config
from plumbline.lm.generation import SamplingConfig
from sft.documents.slices import SlicesConfig


class ChecksConfig(Config):
    """What a question must be to be kept. What fails one check narrowly is doubtful."""

    shared_words: float = Field(0.8, ge=0, le=1)
    """Share of the question's words that must be in the part of its sentence that it asks about."""
    doubtful_words: float = Field(0.6, ge=0, le=1)
    """From this share up to shared_words a question is doubtful; below it is left out."""
    named: float = Field(0.5, ge=0, le=1)
    """Share of that part's words that the question must have; all of them where it asks what
    something is or does."""
    doubtful_named: float = Field(0.3, ge=0, le=1)
    """From this share up to `named` a question is doubtful; below it is left out."""
    most_copied: float = Field(0.3, ge=0, le=1)
    """Most of the words of the answering part that the question may have: above, it gives the
    answer away."""
    gain: float | None = None
    """By how much the question must raise the mean log-probability of a token of the part that
    answers it, in nats, as the generator sees it; below, a question is doubtful. Null: not asked.
    It needs a model on this machine. For small models it tells little (docs/documents.md)."""
    round_trip: float = Field(0.0, ge=0, le=1)
    """Share of the words that the generator's own answer adds to the question which must be in the
    question's sentence, and no other sentence of the slice may have more. Else the question is
    doubtful. 0: the generator is not asked to answer."""
    most_words: int = Field(20, ge=3)
    """Longest question, in words; in characters for Chinese, twice as many."""
    duplicate: float = Field(0.8, gt=0, le=1)
    """From this similarity of two questions on (Jaccard's, of their words), the later one is left
    out."""

    @model_validator(mode="after")
    def _doubt_lies_below(self) -> ChecksConfig:
        for name, doubtful in (
            ("shared_words", "doubtful_words"),
            ("named", "doubtful_named"),
        ):
            if getattr(self, doubtful) > getattr(self, name):
                raise ValueError(
                    f"{doubtful} is {getattr(self, doubtful):g}, above {name} "
                    f"({getattr(self, name):g}), from which on a question is kept. Lower it"
                )
        return self


class QuestionsConfig(Config):
    """How questions are made from documents, and which of them are kept."""

    slices: SlicesConfig = SlicesConfig()
    """How documents are cut."""
    sentences: int = Field(6, ge=1)
    """Sentences of a slice to ask about; a sentence is the answer to its question. Several forms of
    question may fit a sentence."""
    questions: int = Field(4, ge=1)
    """Questions to write for a sentence in each form; the best one that passes the checks is
    kept."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.6, max_new_tokens=24, batch_size=48)
    """How they are drawn."""
    checks: ChecksConfig = ChecksConfig()
    """What is kept."""
    with_context: bool = False
    """Put the slice in front of the question, for a policy that answers from a text. False: the
    question alone."""
