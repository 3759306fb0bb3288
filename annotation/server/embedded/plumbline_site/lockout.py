"""Counts of wrong passwords, and who has to wait.

Three counts, so that guessing does not succeed, and an outsider cannot lock a labeller with a few
wrong guesses: one person from one address (`PAIR`), one address with any names (`ADDRESS`), and one
person from all addresses together (`PERSON`). A device on which the person has signed in before has
a count of its own (`DEVICE`) instead, so that nobody else can lock it. `PERSON` does not hold for
this machine itself. An attempt counts as wrong until the password proves right, so that many
attempts at once get no more tries than one after another. The counts are in one file, which one
process at a time reads and writes: they hold over all server processes of a site.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

WINDOW_SECONDS = 15 * 60
PAIR, ADDRESS, PERSON, DEVICE = 5, 30, 50, 10


class Lockout:
    """The counts, kept in a file so that a restart does not reset them."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._read_version: tuple[int, ...] = ()
        self._attempts: dict[str, list[float]] = {}

    def begin(self, user: str, address: str, device: str | None = None) -> float:
        """Count an attempt as wrong for now; return how many seconds it has to wait, or 0."""
        limits = _limits(user, address, device)
        with self._alone():
            now = self._clock()
            for key in limits:
                recent = [at for at in self._attempts.get(key, []) if at > now - WINDOW_SECONDS]
                self._attempts[key] = recent
            waits = [
                self._attempts[key][-limit] + WINDOW_SECONDS - now
                for key, limit in limits.items()
                if len(self._attempts[key]) >= limit
            ]
            if waits:
                return max(waits)
            for key in limits:
                self._attempts[key].append(now)
            self._write()
            return 0.0

    def succeeded(self, user: str, address: str, device: str | None = None) -> None:
        """Forget the wrong attempts of this person here: the password was right."""
        with self._alone():
            for key in _limits(user, address, device):
                if key.startswith(("pair:", "device:")):
                    self._attempts.pop(key, None)
                elif self._attempts.get(key):
                    self._attempts[key].pop()
            self._write()

    def forget(self, user: str) -> None:
        """Unlock a person: all counts of the name go, and those of addresses with them."""
        mine = _hash(user)
        with self._alone():
            self._attempts = {
                key: attempts
                for key, attempts in self._attempts.items()
                if mine not in key.split(":") and not key.startswith("address:")
            }
            self._write()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Read the counts, and keep other processes from them until they are written."""
        lock = self._file.with_suffix(".lock")
        with os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            self._read()
            yield

    def _read(self) -> None:
        """Read what another process (a server of this site, ``users unlock``) may have changed."""
        try:
            version = self._version()
        except FileNotFoundError:
            return
        if version == self._read_version:
            return
        # A damaged file unlocks everybody: no outsider can damage it, and people must get in.
        self._attempts = {}
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            self._attempts = {
                key: [float(at) for at in attempts]
                for key, attempts in json.loads(self._file.read_bytes()).items()
            }
        self._read_version = version

    def _version(self) -> tuple[int, ...]:
        stat = self._file.stat()
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _write(self) -> None:
        now = self._clock()
        kept = {
            key: at for key, at in self._attempts.items() if at and at[-1] > now - WINDOW_SECONDS
        }
        beside = self._file.with_suffix(".new")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            json.dump(kept, out)
        beside.replace(self._file)
        self._attempts = kept
        self._read_version = self._version()


def _limits(user: str, address: str, device: str | None) -> dict[str, int]:
    """Return the counts of an attempt. Names and addresses are hashed: a name may be a password."""
    who, where = _hash(user), _hash(_network(address))
    if device is not None:
        return {f"device:{who}:{_hash(device)}": DEVICE}
    limits = {f"pair:{who}:{where}": PAIR, f"address:{where}": ADDRESS}
    if not _is_this_machine(address):
        limits[f"person:{who}"] = PERSON
    return limits


def _is_this_machine(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _network(address: str) -> str:
    """Return what one person has: an address, or in IPv6 the 2^64 addresses of one line."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:32]
