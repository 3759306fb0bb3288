"""The embedded world as a source of data: demonstrations and prompts, disjoint by prompt."""

from __future__ import annotations

from plumbline.data.records import Conversation, Row, assistant, prompt_id
from plumbline.errors import ConfigError
from plumbline.seeds import rng
from plumbline.world.clerks import Style, answer
from plumbline.world.requests import KINDS, read, write
from plumbline.world.shop import Shop

#: Which share of all prompts belongs to whom; a prompt's text alone decides.
SHARES = {"demonstrations": 0.4, "preferences": 0.4, "heldout": 0.2}
#: What each share is for, and the setting that says how many prompts of it are used.
USES = {
    "demonstrations": ("demonstrations", "world.demonstrations"),
    "preferences": ("pairs and the rounds of PPO", "pairs.prompts or world.ppo_prompts"),
    "heldout": ("evaluation", "evaluation.prompts"),
}
#: The form of demonstration that each kind of request makes.
FORMS = {"facts": "single_turn", "sum": "chain_of_thought", "order": "multi_turn"}


def demonstrations(data_seed: int, count: int) -> list[Row]:
    """Return conversations of the shop's clerks, in all three forms, with their form."""
    shop, random = Shop.from_seed(data_seed), rng(data_seed, "clerks")
    rows = []
    for prompt in prompts(data_seed, count, "demonstrations"):
        request = read(prompt)
        assert request is not None
        reply = answer(shop, prompt, Style.sample(random))
        rows.append({"messages": [*prompt, assistant(reply)], "form": FORMS[request.kind]})
    return rows


def prompts(data_seed: int, count: int, share: str) -> list[Conversation]:
    """Return different prompts of a share, equally many of each kind of request."""
    random = rng(data_seed, "prompts", share)
    chosen: dict[str, Conversation] = {}
    misses = 0
    while len(chosen) < count:
        prompt = write(KINDS[len(chosen) % len(KINDS)], random)
        identity = prompt_id(prompt)
        if identity not in chosen and share_of(identity) == share:
            chosen[identity] = prompt
            misses = 0
            continue
        misses += 1
        if misses > 10_000:
            use, setting = USES[share]
            raise ConfigError(
                f"{count:,} prompts for {use} are asked, and the embedded world has "
                f"{len(chosen):,} different ones, equally many of each kind. Lower {setting}."
            )
    return list(chosen.values())


def share_of(identity: str) -> str:
    """Return which share a prompt's id falls into."""
    place = int(identity[:8], 16) / 16**8
    for share, size in SHARES.items():
        if place < size:
            return share
        place -= size
    return share
