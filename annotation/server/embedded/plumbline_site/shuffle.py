"""An order of records for each person."""

from __future__ import annotations

from uuid import UUID


def shuffled(user_id: UUID | str) -> str:
    """Return an ORDER BY that is random in effect, the same every time, and each person's own.

    SQLite has no exclusive or: a ^ b = (a | b) - (a & b). Between two multiplications it makes
    the orders of two people unrelated; without it, one would be the other turned round.
    """
    seed = UUID(str(user_id)).int % 2**31
    mixed = "((records.rowid * 2654435761) % 2147483648)"
    return f"((({mixed} | {seed}) - ({mixed} & {seed})) * 1597334677) % 2147483647"
