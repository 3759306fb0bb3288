"""What may vary in making questions from documents."""

from __future__ import annotations

from pydantic import Field, model_validator

from plumbline.config import Config
from plumbline.lm.generation import SamplingConfig
from sft.documents.slices import SlicesConfig


class ChecksConfig(Config):
    """What a question must be to be kept. What fails one check narrowly is doubtful."""

    shared_words: float = Field(0.7, ge=0, le=1)
    """Share of the question's words that its sentence must have."""
    doubtful_words: float = Field(0.5, ge=0, le=1)
    """From this share up to shared_words a question is doubtful; below it is left out."""
    gain: float = 0.8
    """By how much the question must raise the mean log-probability of a token of its answer, in
    nats, as the generator sees it. A question that is not about its answer raises it little."""
    doubtful_gain: float = 0.4
    """From this gain up to `gain` a question is doubtful; below it is left out."""
    most_words: int = Field(20, ge=3)
    """Longest question, in words; in characters for Chinese, twice as many."""
    most_copied: float = Field(0.75, gt=0, le=1)
    """Most of the sentence's words that the question may have: above, it gives the answer away."""
    duplicate: float = Field(0.8, gt=0, le=1)
    """From this similarity of two questions on (Jaccard's, of their words), the later one is left
    out."""

    @model_validator(mode="after")
    def _doubt_lies_below(self) -> ChecksConfig:
        if self.doubtful_words > self.shared_words or self.doubtful_gain > self.gain:
            raise ValueError("doubtful_words and doubtful_gain must not lie above what is kept")
        return self


class QuestionsConfig(Config):
    """How questions are made from documents, and which of them are kept."""

    slices: SlicesConfig = SlicesConfig()
    """How documents are cut."""
    sentences: int = Field(2, ge=1)
    """Sentences of a slice to ask about; a sentence is the answer to its question."""
    questions: int = Field(4, ge=1)
    """Questions to write for a sentence; the best one that passes the checks is kept."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.6, max_new_tokens=24, batch_size=48)
    """How they are drawn."""
    checks: ChecksConfig = ChecksConfig()
    """What is kept."""
    with_context: bool = False
    """Put the slice in front of the question, for a policy that answers from a text. False: the
    question alone."""
