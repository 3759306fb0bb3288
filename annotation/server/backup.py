"""A site in one file, and a site from one file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
import zlib
from pathlib import Path
from typing import BinaryIO

from annotation.server.control import running
from annotation.server.home import Site
from plumbline.errors import BusyError, DataError

_CONTENTS = "contents.json"
_DATABASE = "argilla/argilla.db"
_NEEDED = (_DATABASE, "secrets/owner.json", "secrets/session.key")


def backup(site: Site, file: Path) -> Path:
    """Write a site into one archive, also while people label; return its path.

    Every answer that was acknowledged before the command was given is in it. The archive holds
    passwords' hashes and keys, so only its owner may read it.
    """
    site.owner()  # says so where there is no site
    if not site.database.is_file():
        raise DataError(f"The site in {site.home} was never up; there is nothing to keep yet.")
    if file.exists():
        raise DataError(f"{file} is there already; a backup does not write over another.")
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".part")
    beside.unlink(missing_ok=True)  # what is there keeps its mode
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            _pack(site, out)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    return file


def _pack(site: Site, out: BinaryIO) -> None:
    with (
        tempfile.TemporaryDirectory(dir=site.home) as folder,
        tarfile.open(fileobj=out, mode="w:gz") as archive,
    ):
        copy = Path(folder) / "argilla.db"
        # SQLite's own copy of a database in use: a state between two transactions, never within.
        with (
            contextlib.closing(sqlite3.connect(site.database)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        files = {_DATABASE: copy}
        # After the database: a campaign decides what to ask before it asks, so that everything in
        # the database is known to the campaign's files beside it.
        for part in ("secrets", "credentials", "campaigns"):
            for found in sorted((site.home / part).rglob("*")):
                if found.is_file():
                    files[str(found.relative_to(site.home))] = found
        sums = {}
        for name, path in files.items():
            data = path.read_bytes()  # once: the sum is of what is stored, not of what may follow
            sums[name] = hashlib.sha256(data).hexdigest()
            _add(archive, name, data)
        contents = {"made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "sha256": sums}
        _add(archive, _CONTENTS, json.dumps(contents, indent=2).encode())


def restore(site: Site, file: Path, *, replace: bool = False) -> Path | None:
    """Make a site from an archive; return where the one before it was put, if there was one."""
    if running(site) is not None:
        raise BusyError(f"The site in {site.home} is up. Stop it first: plumbline annotate down.")
    if not file.is_file():
        raise DataError(f"There is no file {file} to restore from.")
    if site.exists() and not replace:
        raise DataError(
            f"There is a site in {site.home} already. --replace puts it aside, whole, under "
            "another name; or restore into another --home."
        )
    site.home.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=site.home.parent, prefix=f".{site.home.name}-"))
    try:
        _unpack(file, fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    aside = None
    if site.home.exists():
        settings = site.settings_file
        if settings.exists():  # how this machine is reached is this machine's affair
            shutil.copy2(settings, fresh / settings.name)
        aside = Path(
            tempfile.mkdtemp(
                dir=site.home.parent,
                prefix=f"{site.home.name}-before-{time.strftime('%Y%m%d-%H%M%S')}-",
            )
        )
        site.home.replace(aside)  # onto an empty folder, which nobody else has
    fresh.replace(site.home)
    site.prepare()
    return aside


def _unpack(file: Path, folder: Path) -> None:
    """Unpack an archive, and see that it holds what was stored and nothing else."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            archive.extractall(folder, filter="data")
        contents = folder / _CONTENTS
        sums = {str(name): str(wanted) for name, wanted in _sums(contents).items()}
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, LookupError) as error:
        raise DataError(
            f"{file} is no whole backup of a labelling site: {error}. Take an earlier one."
        ) from None
    contents.unlink()
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted({*_NEEDED, *sums, *found}):
        if name not in found:
            raise DataError(f"{file} is damaged: {name} is not in it. Take an earlier one.")
        if name not in sums:
            raise DataError(f"{file} holds {name}, which no backup of a labelling site put there.")
        if hashlib.sha256(found[name].read_bytes()).hexdigest() != sums[name]:
            raise DataError(
                f"{file} is damaged: {name} is not what was stored. Take an earlier one."
            )
    try:
        with contextlib.closing(sqlite3.connect(folder / _DATABASE)) as database:
            (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        raise DataError(f"The database in {file} is damaged: {verdict}. Take an earlier backup.")


def _sums(contents: Path) -> dict[str, str]:
    found = json.loads(contents.read_text())
    sums = found.get("sha256") if isinstance(found, dict) else None
    if not isinstance(sums, dict):
        raise ValueError(f"{_CONTENTS} lists no files")
    return sums


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o600
    entry.mtime = int(time.time())
    archive.addfile(entry, io.BytesIO(data))
