"""Names that become names of files, folders, workspaces and accounts: safe characters only."""

from __future__ import annotations

import re

from plumbline.errors import ConfigError

_CAMPAIGN = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
_PERSON = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")
#: Other servers may allow more in a name; these would leave a folder, or spoil a line.
_UNSAFE = re.compile(r"[/\\:\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def check_campaign_name(name: str) -> str:
    """Return the name of a campaign, whose folder bears it; raise `ConfigError` if it is unsafe."""
    if not _CAMPAIGN.fullmatch(name):
        raise ConfigError(
            f"The campaign's name {name!r} must be 1 to 60 lower-case letters, digits, - and _, "
            "and start with a letter or digit. It names the campaign's folder."
        )
    return name


def check_person_name(name: str) -> str:
    """Return the name of a new account; raise `ConfigError` if it is unsafe."""
    if not _PERSON.fullmatch(name):
        raise ConfigError(
            f"The name {name!r} must be 1 to 60 lower-case letters, digits, dots, - and _, and "
            "start with a letter or digit."
        )
    return name


def problem_with_name(name: str) -> str | None:
    """Return what is wrong with the name of an account on any server, or None."""
    if not name.strip() or len(name) > 200:
        return "is empty or longer than 200 characters"
    if _UNSAFE.search(name) or name.startswith("."):
        return "has a slash, a colon, a leading dot or a control character"
    return None
