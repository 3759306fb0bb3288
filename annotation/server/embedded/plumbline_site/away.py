"""Requests that met a lost database get 503, so that pages and clients send them again.

Argilla answers them with an error of its own, or with 200 and a list that says what went wrong
with each answer, which nobody sends again. What was stored already is kept when it comes twice.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from .asgi import App, Message, Receive, Scope, Send, refuse

_lost: ContextVar[list[bool] | None] = ContextVar("lost", default=None)
_STATES = ("08", "57P", "53300")
"""SQLSTATEs of a lost connection, a shutdown or a start, and too many connections."""


def install() -> None:
    """Notice every lost connection, and every one that cannot be made."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def on_error(context: Any) -> None:
        state = str(getattr(context.original_exception, "sqlstate", None) or "")
        if not context.is_pre_ping and (context.is_disconnect or state.startswith(_STATES)):
            _note()

    def connect(dialect: Any, _: Any, positional: Any, named: Any) -> Any:
        try:
            return dialect.connect(*positional, **named)
        except Exception:
            _note()
            raise

    event.listen(Engine, "handle_error", on_error)
    event.listen(Engine, "do_connect", connect)


class WhileAway:
    """Stands before Argilla."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its reply unless the database was lost meanwhile."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        lost: list[bool] = []
        _lost.set(lost)
        is_refused = False

        async def send_unless_lost(message: Message) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start" and lost:
                is_refused = True
                detail = "The database does not answer just now. Try again."
                await refuse(send, 503, detail, [(b"retry-after", b"1")])
            elif not is_refused:
                await send(message)

        await self._app(scope, receive, send_unless_lost)


def _note() -> None:
    lost = _lost.get()
    if lost is not None:
        lost.append(True)
