"""What may vary in a campaign: who looks at what, how often, and what they are asked."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, model_validator

from plumbline.config import Config, not_in_identity

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")


class CampaignConfig(Config):
    """One campaign: the same questions about many pairs."""

    name: str = "preferences"
    """Names the campaign, its datasets and its workspaces: small letters, digits, - and _."""
    people: tuple[str, ...] = ()
    """User names. Each gets a workspace and a queue of their own, and sees nobody else's. Empty
    means one shared queue, from which everybody in the workspace takes what is still open."""
    workspace: str | None = None
    """The workspace of the shared queue; it must be there. Not set: one named like the campaign,
    made if it is not there."""
    overlap: int = Field(3, ge=1)
    """Different people who vote on each pair."""
    gold_share: float = Field(0.05, ge=0, lt=1)
    """Items with a known answer, as a share of the votes in a queue; at least one a queue where
    there are any."""
    repeat_share: float = Field(0.05, ge=0, le=1)
    """Pairs shown a second time, as a share of the votes in a queue; at least one a queue."""
    repeat_distance: int = Field(20, ge=1)
    """Items, at least, from a pair's first showing to its second; half the queue where that is
    less."""
    strength: bool = True
    """Ask by how much the better response is better: 1 slightly, 2 clearly, 3 much."""
    rationale: bool = True
    """Ask for the reason, in words."""
    aspects: tuple[str, ...] = ()
    """Aspects to compare the responses on besides, such as helpful, harmless and honest."""
    flags: tuple[str, ...] = ("unsafe", "personal_data")
    """What may be noted about a pair besides: none, or at least two things to choose from."""
    markdown: bool = False
    """Render the texts as Markdown. Off, since an image in a response would be fetched from
    wherever it says, and tell that server who reads it and when."""
    near_identical: float = Field(0.97, gt=0, le=1)
    """Pairs whose responses are this similar (1 is the same text, but for case and white space)
    are left out, and counted: nobody can tell them apart."""
    guidelines: Path | None = None
    """A Markdown file with the guidelines page, in place of the one that comes with this."""
    show_votes: bool = True
    """Show the senior labeller who adjudicates the votes and their rationales."""
    seed: int = Field(0, ge=0)
    """Seed of order, sides, gold items, repeats and assignment."""

    @model_validator(mode="after")
    def _can_be_done(self) -> CampaignConfig:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"the name {self.name!r} must be 1 to 60 small letters, digits, - and _, "
                "starting with a letter or digit"
            )
        twice = sorted({name for name in self.people if self.people.count(name) > 1})
        if twice:
            raise ValueError(f"people names {', '.join(twice)} more than once")
        if self.people and self.overlap > len(self.people):
            raise ValueError(
                f"overlap is {self.overlap}, but people names {len(self.people)}, and nobody "
                "votes twice on a pair. Name more people or lower overlap"
            )
        if self.people and self.workspace is not None:
            raise ValueError(
                f"workspace is {self.workspace!r}, but with people named each has a workspace of "
                "their own. Leave one of the two out"
            )
        if len(self.flags) == 1:
            raise ValueError(
                f"flags names {self.flags[0]!r} alone, but a page offers two or more to choose "
                "from. Add one, or ask about no flags"
            )
        for kind, words in (("aspects", self.aspects), ("flags", self.flags)):
            for word in words:
                if not _WORD.fullmatch(word):
                    raise ValueError(
                        f"{kind} has {word!r}; use 1 to 40 small letters, digits and _, starting "
                        "with a letter"
                    )
            if len(set(words)) < len(words):
                raise ValueError(f"{kind} names something twice: {', '.join(words)}")
        return self


class WaitConfig(Config):
    """How long to wait for labels, and how."""

    enough: int | None = not_in_identity(None, ge=1)
    """Votes to wait for; not set, until every item has been answered as often as it should be."""
    poll_seconds: float = not_in_identity(5.0, gt=0)
    """How often to ask the server how far people have come."""
    webhook: bool = not_in_identity(False)
    """Let the server say when something was answered; polling goes on beside it, more slowly."""
    patience_seconds: float = not_in_identity(120.0, gt=0)
    """How long a server that does not answer is tried again before giving up."""
