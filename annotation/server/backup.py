"""A site in one file, and a site from one file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from pathlib import Path

from annotation.server.control import running
from annotation.server.home import Site
from plumbline.errors import BusyError, DataError

_CONTENTS = "contents.json"
_DATABASE = "argilla/argilla.db"


def backup(site: Site, file: Path) -> Path:
    """Write a site into one archive, also while people label; return its path.

    Every answer that was acknowledged before the command was given is in it. The archive holds
    passwords' hashes and keys, so only its owner may read it.
    """
    site.owner()  # says so where there is no site
    if file.exists():
        raise DataError(f"{file} is there already; a backup does not write over another.")
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".part")
    with tempfile.TemporaryDirectory(dir=site.home) as folder:
        copy = Path(folder) / "argilla.db"
        # SQLite's own copy of a database in use: a state between two transactions, never within.
        source, target = sqlite3.connect(site.database), sqlite3.connect(copy)
        with source, target:
            source.backup(target)
        source.close()
        target.close()
        files = {_DATABASE: copy}
        for part in ("secrets", "credentials", "campaigns"):
            for found in sorted((site.home / part).rglob("*")):
                if found.is_file():
                    files[str(found.relative_to(site.home))] = found
        with (
            os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out,
            tarfile.open(fileobj=out, mode="w:gz") as archive,
        ):
            contents = {"made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "sha256": {}}
            for name, path in files.items():
                data = path.read_bytes()  # once: the sum is of what is stored, not of what may follow
                contents["sha256"][name] = hashlib.sha256(data).hexdigest()  # type: ignore[index]
                _add(archive, name, data)
            _add(archive, _CONTENTS, json.dumps(contents, indent=2).encode())
    beside.replace(file)
    return file


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
        aside = site.home.with_name(f"{site.home.name}-before-{time.strftime('%Y%m%d-%H%M%S')}")
        site.home.rename(aside)
        settings = aside / "site.json"
        if settings.exists():  # how this machine is reached is this machine's affair
            shutil.copy2(settings, fresh / "site.json")
    fresh.rename(site.home)
    site.prepare()
    return aside


def _unpack(file: Path, folder: Path) -> None:
    """Unpack an archive and check every file in it against its sum."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            archive.extractall(folder, filter="data")
        contents = json.loads((folder / _CONTENTS).read_text())
        sums = contents["sha256"]
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{file} is no whole backup of a labelling site: {error}.") from None
    (folder / _CONTENTS).unlink()
    for name, wanted in sums.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise DataError(f"{file} is damaged: {name} is not what was stored.")
    database = sqlite3.connect(folder / _DATABASE)
    try:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    finally:
        database.close()
    if verdict != "ok":
        raise DataError(f"The database in {file} is damaged: {verdict}.")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o600
    entry.mtime = int(time.time())
    archive.addfile(entry, io.BytesIO(data))
