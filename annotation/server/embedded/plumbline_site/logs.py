"""The server's log: it quotes nobody's input, and it does not grow without end.

A person may have typed a password in a wrong place, so errors of validation are logged without the
value that was refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import traceback
from pathlib import Path
from typing import Any

LARGEST_LOG, KEPT_LOGS = 5_000_000, 3
"""Bytes of a log before it is set aside, and how many older logs are kept."""
CHECK_SECONDS = 30.0


class Discreet(logging.Formatter):
    """Leaves out the texts of validation errors, because they quote the value that was refused."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback without values from the request."""
        error = record.msg
        if isinstance(error, BaseException):
            record = logging.makeLogRecord(record.__dict__)
            record.msg, record.args = _described(error), ()
            record.exc_text = None
            if type(error).__name__ == "RequestValidationError":
                record.exc_info = None  # the sender got the reason; here a line is enough
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback; an error of validation is shown by its place, without the value."""
        shown = traceback.TracebackException(*ei)
        part: traceback.TracebackException | None = shown
        error: BaseException | None = ei[1]
        while part is not None and error is not None:
            if _quotes(error):
                part._str = _described(error)  # type: ignore[attr-defined]
            following = (part.__cause__, error.__cause__)
            part, error = following if following[0] else (part.__context__, error.__context__)
        return "".join(shown.format()).rstrip("\n")


def install() -> None:
    """Use this format for all of the server's log; migrations set another one."""
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
            logger.propagate = True
            logger.handlers.clear()


def _quotes(error: BaseException) -> bool:
    """Return whether this is an error of validation: pydantic's and FastAPI's have ``errors``."""
    return callable(getattr(error, "errors", None))


def _described(error: BaseException) -> str:
    if not _quotes(error):
        return str(error)
    try:
        places = [
            f"{'.'.join(map(str, part.get('loc', ())))}: {part.get('type')}"
            for part in error.errors()  # type: ignore[attr-defined]
        ]
    except Exception:
        places = []
    return f"{type(error).__name__} ({'; '.join(places)})"


async def keep_small(log: Path) -> None:
    """Rotate the log whenever it is too large, for as long as the server runs."""
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        rotate(log)


def rotate(log: Path) -> bool:
    """Set the log aside as ``.1`` where it is too large, and remove the oldest; return whether.

    The server and its libraries hold the file open to append to it. So it is copied and emptied,
    and not renamed.
    """
    if not log.exists() or log.stat().st_size <= LARGEST_LOG:
        return False
    for number in range(KEPT_LOGS - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    shutil.copy2(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)
    return True
