"""A log that quotes nobody's input: what was typed wrongly may have been a password."""

from __future__ import annotations

import logging
import traceback
from typing import Any


class Discreet(logging.Formatter):
    """Leaves out what errors of validation say, for they quote the value that was refused."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback without the values of what was asked."""
        error = record.msg
        if isinstance(error, BaseException):
            record = logging.makeLogRecord(record.__dict__)
            record.msg, record.args = _described(error), ()
            record.exc_text = None
            if type(error).__name__ == "RequestValidationError":
                record.exc_info = None  # the client was told; here a line is enough
        return super().format(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback; of an error of validation, where it was and not what."""
        told = traceback.TracebackException(*ei)
        part: traceback.TracebackException | None = told
        error: BaseException | None = ei[1]
        while part is not None and error is not None:
            if _quotes(error):
                part._str = _described(error)  # type: ignore[attr-defined]
            following = (part.__cause__, error.__cause__)
            part, error = following if following[0] else (part.__context__, error.__context__)
        return "".join(told.format()).rstrip("\n")


def install() -> None:
    """Write the server's log this way, replacing earlier settings (migrations set their own)."""
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
            logger.propagate = True
            logger.handlers.clear()


def _quotes(error: BaseException) -> bool:
    """Return whether an error is one of validation: pydantic's and FastAPI's have ``errors``."""
    return callable(getattr(error, "errors", None))


def _described(error: BaseException) -> str:
    if not _quotes(error):
        return str(error)
    try:
        found = [
            f"{'.'.join(map(str, part.get('loc', ())))}: {part.get('type')}"
            for part in error.errors()  # type: ignore[attr-defined]
        ]
    except Exception:
        found = []
    return f"{type(error).__name__} ({'; '.join(found)})"
