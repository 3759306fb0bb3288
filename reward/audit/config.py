"""What may vary in an audit."""

from __future__ import annotations

from pydantic import Field

from plumbline.config import Config
from plumbline.data.reader import DataFormatConfig


class AuditConfig(Config):
    """How a reward model is audited."""

    data: DataFormatConfig = DataFormatConfig()
    """How the files of pairs are read."""
    max_pairs: int = Field(2000, ge=20)
    """Pairs that are scored; of more, so many are drawn at random."""
    changed_responses: int = Field(200, ge=20)
    """Chosen responses that are changed (paraphrased, cut, padded) to see what the score does."""
    adversarial: bool = True
    """Search suffixes that raise the score of any response."""
    suffix_words: int = Field(6, ge=1, le=64)
    """Words of an adversarial suffix."""
    suffix_draws: int = Field(64, ge=2)
    """Suffixes that are tried at random before the token search."""
    suffix_candidates: int = Field(16, ge=1)
    """Words that the token search tries in each place."""
    own_model: str | None = None
    """For self-preference: what the data call the reward model's own family of policies, as in
    chosen_model. Responses of models whose name contains it count as its own."""
    to_label: int = Field(200, ge=0)
    """Pairs in the file of those most worth labelling next."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """The chance that a reward model without any bias is accused of one."""
