"""Errors that a user can act on.

Each says what was set or found, what follows from it, and what to do. The command line prints
them without a traceback and exits with the code of their kind.
"""

from __future__ import annotations


def brief(value: object, most: int = 80) -> str:
    """Return a value as a message quotes it: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


class PlumblineError(Exception):
    """An error with something that the user can do about it."""

    exit_code = 1


class ConfigError(PlumblineError):
    """A setting is unknown, impossible or of the wrong type."""

    exit_code = 2


class DataError(PlumblineError):
    """Records on disk are missing, malformed or too few."""

    exit_code = 3


class ModelError(PlumblineError):
    """A model, adapter or tokenizer cannot be loaded or does not fit its use."""

    exit_code = 4


class ArtifactError(PlumblineError):
    """An artefact is missing, damaged or of the wrong kind."""

    exit_code = 5


class BusyError(PlumblineError):
    """Another process is making the same thing."""

    exit_code = 6
