"""The settings of a campaign: who sees which pairs, how often, and what they are asked."""

from __future__ import annotations

from pydantic import Field, model_validator

from annotation.names import check_campaign_name, problem_with_name
from annotation.questions.form_config import FormConfig
from plumbline.config import Config, Seed, not_in_identity, only_when
from plumbline.errors import ConfigError

USUAL_OVERLAP = 3
"""Votes on each pair where ``overlap`` is not set and at least so many people label."""


class CampaignConfig(FormConfig):
    """One campaign: the same questions about many pairs."""

    name: str = "preferences"
    """Names the campaign, its folder, datasets and workspaces: lower-case letters, digits, - and
    _."""
    people: tuple[str, ...] = ()
    """User names. Each person gets a workspace and a queue, and sees nobody else's. Empty: one
    shared queue, from which everybody in the workspace takes the next open pair."""
    workspace: str | None = only_when(
        lambda config: not config.people, "people to be empty (one shared queue)", None
    )
    """The workspace of the shared queue; it must exist. Null: one named like the campaign, made
    if it does not exist."""
    overlap: int | None = Field(None, ge=1)
    """How many different people vote on each pair. Null: three, or as many as there are people if
    they are fewer."""
    gold_share: float = Field(0.05, ge=0, lt=1)
    """Items with a known answer, as a share of the votes in a queue; at least one per queue if
    there are any such items."""
    repeat_share: float = Field(0.05, ge=0, le=1)
    """Pairs shown a second time, as a share of the votes in a queue; at least one per queue."""
    repeat_distance: int = only_when(
        lambda config: config.repeat_share > 0, "repeat_share above 0", 20, ge=1
    )
    """The least number of items between a pair's first and second showing; half the queue if that
    is less."""
    near_identical: float = Field(0.97, gt=0, le=1)
    """Pairs whose responses are this similar are left out and counted, because nobody can see
    a difference. 1 is the same text except for case and white space."""
    seed: Seed = 0
    """Seed of the order, the sides, the gold items, the repeats and who gets which pair."""

    @property
    def votes_per_pair(self) -> int:
        """How many different people vote on each pair."""
        if self.overlap is not None:
            return self.overlap
        return min(USUAL_OVERLAP, len(self.people)) if self.people else USUAL_OVERLAP

    @model_validator(mode="after")
    def _can_be_done(self) -> CampaignConfig:
        try:
            check_campaign_name(self.name)
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from None
        for name in self.people:
            problem = problem_with_name(name)
            if problem is not None:
                raise ValueError(f"people names {name!r}, which {problem}")
        twice = sorted({name for name in self.people if self.people.count(name) > 1})
        if twice:
            raise ValueError(f"people names {', '.join(twice)} more than once")
        if self.people and self.overlap is not None and self.overlap > len(self.people):
            raise ValueError(
                f"overlap is {self.overlap}, but people names {len(self.people)}, and nobody "
                "votes twice on a pair. Name more people or lower overlap"
            )
        return self


class WaitConfig(Config):
    """How long to wait for labels, and how."""

    enough: int | None = not_in_identity(None, ge=1)
    """Votes to wait for. Null: until every item has all its answers."""
    poll_seconds: float = not_in_identity(5.0, gt=0)
    """Seconds between two requests that ask the server for progress."""
    webhook: bool = not_in_identity(False)
    """Let the server call when somebody has answered. The server is still asked, less often."""
    patience_seconds: float = not_in_identity(120.0, gt=0)
    """How long a server that does not answer is tried again."""
