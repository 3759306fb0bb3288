"""Backup of a whole site to one archive, and restoring from it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import time
import zlib
from pathlib import Path
from typing import BinaryIO

from annotation.private_files import is_unfinished
from annotation.server.control import running
from annotation.server.embedded.plumbline_site.services import read
from annotation.server.environment import EMBEDDED, python
from annotation.server.services import stored_file
from annotation.server.site_folder import Site
from plumbline.errors import BusyError, DataError
from plumbline.temporary import TemporaryFolder

_CONTENTS = "contents.json"
_DATABASE = "argilla/argilla.db"
_NEEDED = (_DATABASE, "secrets/owner.json", "secrets/session.key")


def backup(site: Site, file: Path) -> Path:
    """Write a site to one archive, also while people label; return its path.

    Every answer that was acknowledged before the command is in it. The archive holds keys and
    hashes of passwords, so only its owner may read it.
    """
    site.owner()  # an error where there is no site
    if read(site.home) is None and not site.database.is_file():
        raise DataError(f"The site in {site.home} never ran, so there is nothing to back up yet.")
    if file.exists():
        raise DataError(
            f"{file} exists already, and a backup does not overwrite a file. Name another."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".part")
    beside.unlink(missing_ok=True)  # an existing file would keep its mode
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
        TemporaryFolder(site.home) as folder,
        tarfile.open(fileobj=out, mode="w:gz") as archive,
    ):
        copy = folder / "argilla.db"
        if read(site.home) is None:
            # SQLite's own copy of a database in use: a state between two transactions.
            with (
                contextlib.closing(sqlite3.connect(site.database)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        else:
            _export(site, copy)
        files = {_DATABASE: copy}
        # After the database: a campaign writes down what it sends before it sends anything, so its
        # files know everything in the database.
        for part in ("secrets", "credentials", "campaigns"):
            for path in sorted((site.home / part).rglob("*")):
                if path.is_file() and not is_unfinished(path):
                    files[str(path.relative_to(site.home))] = path
        sums = {}
        for name, path in files.items():
            try:
                data = path.read_bytes()  # read once: the hash is of the bytes that are stored
            except FileNotFoundError:  # a password of somebody who was removed meanwhile
                continue
            sums[name] = hashlib.sha256(data).hexdigest()
            _add(archive, name, data)
        contents = {"made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "sha256": sums}
        _add(archive, _CONTENTS, json.dumps(contents, indent=2).encode())


def _export(site: Site, copy: Path) -> None:
    """Write what is in PostgreSQL into a file of SQLite, as it is at one moment."""
    result = subprocess.run(
        [python(), "-P", "-m", "plumbline_site.export", site.settings_file.resolve(), copy],
        env={
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PYTHONPATH": str(EMBEDDED),
            "TMPDIR": str(copy.parent),
        },
        cwd=copy.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        reason = result.stderr.strip().splitlines()[-1:]
        raise DataError(" ".join(["No backup was written.", *reason]))


def restore(site: Site, file: Path, *, replace: bool = False) -> Path | None:
    """Restore a site from an archive; return the folder of the site before it, if there was one."""
    if running(site) is not None:
        raise BusyError(f"The site in {site.home} is up. Stop it first: plumbline annotate down.")
    if not file.is_file():
        raise DataError(f"There is no file {file} to restore.")
    if site.exists() and not replace:
        raise DataError(
            f"There is a site in {site.home} already. --replace moves it to a folder with another "
            "name. Or restore into another --home."
        )
    site.home.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFolder(site.home.parent) as fresh:
        _unpack(file, fresh)
        aside = _set_aside(site, fresh) if site.home.exists() else None
        fresh.replace(site.home)
    site.prepare()
    return aside


def _set_aside(site: Site, fresh: Path) -> Path:
    """Move the site out of the way of another, which keeps its addresses; return where it is."""
    # The addresses belong to this machine, not to the backup.
    for settings in (site.settings_file, stored_file(site)):
        if settings.exists():
            shutil.copy2(settings, fresh / settings.name)
    aside = Path(
        tempfile.mkdtemp(
            dir=site.home.parent,
            prefix=f"{site.home.name}-before-{time.strftime('%Y%m%d-%H%M%S')}-",
        )
    )
    site.home.replace(aside)  # onto an empty folder of this process's own
    return aside


def _unpack(file: Path, folder: Path) -> None:
    """Unpack an archive, and check that it holds what was stored and nothing else."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            archive.extractall(folder, filter="data")
        contents = folder / _CONTENTS
        sums = {str(name): str(wanted) for name, wanted in _sums(contents).items()}
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, LookupError) as error:
        raise DataError(
            f"{file} is not a complete backup of a labelling site: {error}. Use an earlier one."
        ) from None
    contents.unlink()
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if not path.is_dir()}
    for name in sorted({*_NEEDED, *sums, *files}):
        if name not in files:
            raise DataError(f"{file} is damaged: {name} is not in it. Use an earlier one.")
        if name not in sums:
            raise DataError(f"{file} holds {name}, which no backup of a labelling site writes.")
        if hashlib.sha256(files[name].read_bytes()).hexdigest() != sums[name]:
            raise DataError(
                f"{file} is damaged: {name} is not what was stored. Use an earlier one."
            )
    try:
        with contextlib.closing(sqlite3.connect(folder / _DATABASE)) as database:
            (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        raise DataError(f"The database in {file} is damaged: {verdict}. Use an earlier backup.")


def _sums(contents: Path) -> dict[str, str]:
    listed = json.loads(contents.read_text())
    sums = listed.get("sha256") if isinstance(listed, dict) else None
    if not isinstance(sums, dict):
        raise ValueError(f"{_CONTENTS} lists no files")
    return sums


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o600
    entry.mtime = int(time.time())
    archive.addfile(entry, io.BytesIO(data))
