"""``plumbline data new-key | encrypt | decrypt | unmask``: data under a key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from plumbline.errors import ConfigError, DataError

Folder = Annotated[
    Path, typer.Argument(help="The folder of a dataset.", show_default=False, exists=True)
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="The file with the data key. By default PLUMBLINE_DATA_KEY holds the key, or "
        "PLUMBLINE_DATA_KEY_FILE names the file.",
        show_default=False,
    ),
]


def new_key(
    file: Annotated[Path, typer.Argument(help="Where to write it.", show_default=False)],
) -> None:
    """Make a data key: a file with 64 hexadecimal digits that only you can read.

    Keep it outside the folders of data, and keep a copy: without it, what it encrypted is lost.
    """
    from plumbline.data import encryption

    key = encryption.new_key(file)
    typer.echo(f"Wrote the data key {key.id} to {file}.")


def encrypt(folder: Folder, key_file: KeyFile = None) -> None:
    """Encrypt the rows of a dataset in place, with AES-256-GCM.

    All commands read an encrypted dataset while PLUMBLINE_DATA_KEY or PLUMBLINE_DATA_KEY_FILE is
    set.
    """
    from plumbline.data import encryption

    _say(encryption.encrypt_dataset(folder, encryption.data_key(key_file)), folder, "Encrypted")


def decrypt(folder: Folder, key_file: KeyFile = None) -> None:
    """Decrypt a dataset in place."""
    from plumbline.data import encryption

    _say(encryption.decrypt_dataset(folder, encryption.data_key(key_file)), folder, "Decrypted")


def unmask(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="Where to write the rows.", show_default=False)],
    split: Annotated[str, typer.Option(help="The split to read.")] = "train",
    key_file: KeyFile = None,
) -> None:
    """Write a dataset's rows with the personal data that was masked in them, as JSON lines.

    Only where the build masked with ``reversible: true``. The file can be read by you alone.
    """
    from plumbline.data.encryption import data_key
    from plumbline.data.records import as_json_lines, iterate_dataset, split_file
    from sft.personal_data.mask import COLUMN, unmask_row

    key = data_key(key_file)
    split_file(folder, split)  # that it is there is known before a file is made
    count = masked = 0
    if file.exists():
        raise ConfigError(f"{file} exists. Give another name, or remove it.")
    partial = file.with_name(file.name + ".partial")
    partial.unlink(missing_ok=True)  # of a command that was killed
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            for row in iterate_dataset(folder, split):
                count, masked = count + 1, masked + bool(row.get(COLUMN))
                stream.write(as_json_lines([unmask_row(row, key)]))
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
    typer.echo(f"Wrote {count} rows to {file}; {masked} of {count} rows were masked.")


def _say(files: list[Path], folder: Path, done: str) -> None:
    if not files:
        raise DataError(
            f"{folder} has no rows to be {done.lower()}: no *.parquet or *.jsonl file of that kind."
        )
    typer.echo(f"{done}: {', '.join(file.name for file in files)}")
