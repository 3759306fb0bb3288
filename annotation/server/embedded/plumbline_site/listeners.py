"""Events of webhooks are built only while a webhook listens.

One process remembers whether any does, until it changes a webhook. Several
processes ask the database in every session, because another one may have changed a webhook.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


class _EventWithoutListeners:
    """An event that is sent to nobody."""

    async def notify(self, _: Any) -> list[Any]:
        return []


_NO_EVENT = _EventWithoutListeners()
_LISTENED_TO = "plumbline_listened_to"


@dataclass
class _Listeners:
    """Whether there are webhooks."""

    enabled: bool | None = None
    """Whether any webhook is enabled; None where this has to be looked up."""
    changes: int = 0


_listeners = _Listeners()


def skip_events_without_listeners(
    webhooks: Any, module: Any, name: str, *, is_only_process: bool = True
) -> None:
    """Build no event while no webhook is enabled: this took most of the time of a push."""
    build = getattr(module, name)

    async def build_if_anybody_listens(db: Any, event: Any, subject: Any) -> Any:
        if _LISTENED_TO not in db.info:
            db.info[_LISTENED_TO] = bool(await webhooks.list_enabled_webhooks(db))
        return await build(db, event, subject) if db.info[_LISTENED_TO] else _NO_EVENT

    if not is_only_process:
        setattr(module, name, build_if_anybody_listens)
        return

    async def build_if_enabled(db: Any, event: Any, subject: Any) -> Any:
        enabled = _listeners.enabled
        if enabled is None:
            before = _listeners.changes
            enabled = bool(await webhooks.list_enabled_webhooks(db))
            if before == _listeners.changes:  # else it may be out of date; look it up next time
                _listeners.enabled = enabled
        return await build(db, event, subject) if enabled else _NO_EVENT

    setattr(module, name, build_if_enabled)
    for change in ("create_webhook", "update_webhook", "delete_webhook"):
        original = getattr(webhooks, change)
        if not hasattr(original, "resets_listeners"):
            setattr(webhooks, change, _resetting_listeners(original))


def _resetting_listeners(change: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def changed(*arguments: Any) -> Any:
        try:
            return await change(*arguments)
        finally:
            _listeners.enabled = None
            _listeners.changes += 1

    changed.resets_listeners = True  # type: ignore[attr-defined]
    return changed
