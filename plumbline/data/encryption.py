"""Encryption of data at rest, and of values taken out of texts: AES-256-GCM under one data key.

The key comes from the environment or from a file, never from a config, and is written nowhere. What
is encrypted names the key by a short digest, so that a wrong key gives another error than a damaged
file.

A file is encrypted in frames with a counter as their nonce and a mark on the last one (the STREAM
construction of Hoang et al., 2015), each file under a key of its own. The header, with the file's
name, is authenticated with every frame, so no file can stand in for another. Equal content under an
equal name gives equal bytes: the only thing that this tells a reader is that two files are equal.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from plumbline.errors import ConfigError, DataError

KEY_VARIABLE = "PLUMBLINE_DATA_KEY"
KEY_FILE_VARIABLE = "PLUMBLINE_DATA_KEY_FILE"
SUFFIX = ".encrypted"
FRAME = 1 << 20
"""Bytes of plain text in a frame; memory for a file is a few of these."""
_MAGIC = b"plumbline-encrypted-1\n"
_KEY_BYTES, _SALT_BYTES, _TAG_BYTES, _NONCE_BYTES, _ID_BYTES = 32, 16, 16, 12, 4


@dataclass(frozen=True)
class DataKey:
    """A key for data, and where it came from."""

    secret: bytes = field(repr=False)
    where: str

    @property
    def id(self) -> str:
        """A short name of this key: 8 hexadecimal digits, from which no key follows."""
        return self.key_for("id")[:_ID_BYTES].hex()

    def key_for(self, purpose: str, salt: bytes = b"") -> bytes:
        """Return a key for one purpose (HKDF with SHA-256, RFC 5869), 32 bytes."""
        extracted = hmac.digest(salt or bytes(32), self.secret, "sha256")
        return hmac.digest(extracted, f"plumbline {purpose}".encode() + b"\x01", "sha256")


def data_key(file: Path | None = None) -> DataKey:
    """Return the key in a file, else the one that the environment holds or names a file of.

    Raises `ConfigError` where there is none, or where it is not a key.
    """
    if file is None and (text := os.environ.get(KEY_VARIABLE)):
        return _parsed(text, f"the variable {KEY_VARIABLE}")
    if file is None and not os.environ.get(KEY_FILE_VARIABLE):
        raise ConfigError(
            f"No data key is set: neither {KEY_VARIABLE} nor {KEY_FILE_VARIABLE} is set. Make "
            f"one with 'plumbline data new-key FILE', and set {KEY_FILE_VARIABLE} to that file."
        )
    file = file or Path(os.environ[KEY_FILE_VARIABLE])
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The data key in {file} cannot be read: {error}.") from None
    return _parsed(text, str(file))


def new_key(file: Path) -> DataKey:
    """Write a new key to a file that only this user can read; an existing file is left alone."""
    text = secrets.token_hex(_KEY_BYTES)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"{file} exists. A key that is overwritten takes with it all that it encrypted. Give "
            "another name."
        ) from None
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"{text}\n")
    return _parsed(text, str(file))


def _parsed(text: str, where: str) -> DataKey:
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError:
        secret = b""
    if len(secret) != _KEY_BYTES:
        # The text is not quoted: it may be most of a key.
        raise ConfigError(
            f"The value in {where} is not a data key, which is {2 * _KEY_BYTES} hexadecimal "
            "digits. Make one with 'plumbline data new-key FILE'."
        )
    return DataKey(secret, where)


def encrypt_text(text: str, key: DataKey, context: str) -> str:
    """Return a text encrypted as one line of ASCII; ``context`` must be given again to read it.

    The nonce is a digest of context and text under a key, so it repeats only where both do.
    """
    plain, bound = text.encode("utf-8", "surrogatepass"), context.encode("utf-8", "surrogatepass")
    joined = len(bound).to_bytes(8, "big") + bound + plain
    nonce = hmac.digest(key.key_for("nonces of texts"), joined, "sha256")[:_NONCE_BYTES]
    sealed = _cipher(key.key_for("texts")).encrypt(nonce, plain, bound)
    return f"{key.id}:{base64.urlsafe_b64encode(nonce + sealed).decode()}"


def decrypt_text(sealed: str, key: DataKey, context: str) -> str:
    """Return what `encrypt_text` made a line of; raise `DataError` where it cannot be read."""
    from cryptography.exceptions import InvalidTag

    key_id, _, body = sealed.partition(":")
    _check_key(key_id, key, "These values were")
    try:
        raw = base64.urlsafe_b64decode(body)
        text: bytes = _cipher(key.key_for("texts")).decrypt(
            raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode("utf-8", "surrogatepass")
        )
    except (ValueError, InvalidTag):
        raise DataError(
            "Encrypted values do not belong to the text beside them: one of the two was changed. "
            "Take both from the same version of the dataset."
        ) from None
    return text.decode("utf-8", "surrogatepass")


def encrypt_file(path: Path, key: DataKey) -> Path:
    """Encrypt a file beside itself and remove the plain one; return the new path."""
    target = path.with_name(path.name + SUFFIX)
    partial = target.with_name(target.name + ".partial")
    name = path.name.encode()
    digest = hmac.new(key.key_for("salts of files"), name + b"\0", "sha256")
    with path.open("rb") as source:
        digest.update(hashlib.file_digest(source, "sha256").digest())
        source.seek(0)
        salt = digest.digest()[:_SALT_BYTES]
        header = _MAGIC + bytes.fromhex(key.id) + salt + len(name).to_bytes(2, "big") + name
        cipher = _cipher(key.key_for("file", salt))
        with partial.open("wb") as stream:
            stream.write(header)
            for nonce, frame in _frames(source, FRAME):
                stream.write(cipher.encrypt(nonce, frame, header))
            stream.flush()
            os.fsync(stream.fileno())
    partial.replace(target)
    path.unlink()
    return target


def encrypt_dataset(folder: Path, key: DataKey) -> list[Path]:
    """Encrypt the rows of a dataset, kept and left out; return the new files.

    Its card and manifest, which hold counts and no rows, stay as they are.
    """
    return [encrypt_file(file, key) for file in _files_with_rows(folder, "")]


def decrypt_dataset(folder: Path, key: DataKey) -> list[Path]:
    """Decrypt what `encrypt_dataset` encrypted; return the plain files."""
    return [decrypt_file(file, key) for file in _files_with_rows(folder, SUFFIX)]


def is_encrypted(folder: Path) -> bool:
    """Return whether rows of a dataset are encrypted."""
    return bool(_files_with_rows(folder, SUFFIX))


def _files_with_rows(folder: Path, suffix: str) -> list[Path]:
    patterns = ("*.parquet", "*.jsonl")
    return sorted(file for pattern in patterns for file in folder.glob(pattern + suffix))


def decrypted(path: Path, key: DataKey) -> Iterator[bytes]:
    """Yield the content of an encrypted file, each part checked before it is given out."""
    from cryptography.exceptions import InvalidTag

    with path.open("rb") as source:
        header, salt = _read_header(source, path, key)
        cipher = _cipher(key.key_for("file", salt))
        for nonce, frame in _frames(source, FRAME + _TAG_BYTES):
            try:
                yield cipher.decrypt(nonce, frame, header)
            except InvalidTag:
                raise DataError(
                    f"{path} is damaged or cut off: what it holds is not what was encrypted. Take "
                    "it from a copy, or make the dataset again."
                ) from None


def read_decrypted(path: Path, key: DataKey | None = None) -> bytes:
    """Return the whole content of an encrypted file."""
    return b"".join(decrypted(path, key or data_key()))


def decrypt_file(path: Path, key: DataKey) -> Path:
    """Write the plain file beside an encrypted one and remove that; return the new path."""
    target = path.with_name(path.name.removesuffix(SUFFIX))
    partial = target.with_name(target.name + ".partial")
    try:
        with partial.open("wb") as stream:
            stream.writelines(decrypted(path, key))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    path.unlink()
    return target


def _read_header(source: BinaryIO, path: Path, key: DataKey) -> tuple[bytes, bytes]:
    fixed = source.read(len(_MAGIC) + _ID_BYTES + _SALT_BYTES + 2)
    if not fixed.startswith(_MAGIC):
        raise DataError(f"{path} is not a file that Plumbline encrypted.")
    rest = fixed[len(_MAGIC) :]
    _check_key(rest[:_ID_BYTES].hex(), key, f"{path} was")
    name = source.read(int.from_bytes(rest[-2:], "big"))
    if name.decode("utf-8", "replace") + SUFFIX != path.name:
        raise DataError(
            f"{path} was encrypted as {name.decode('utf-8', 'replace')!r}. Give it that name with "
            f"{SUFFIX} behind it, or check who changed it."
        )
    return fixed + name, rest[_ID_BYTES : _ID_BYTES + _SALT_BYTES]


def _check_key(key_id: str, key: DataKey, what: str) -> None:
    if key_id != key.id:
        raise DataError(
            f"{what} encrypted with the data key {key_id}; the one in {key.where} is {key.id}. "
            f"Give the right key by {KEY_VARIABLE} or {KEY_FILE_VARIABLE}."
        )


def _frames(source: BinaryIO, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield nonce and content of each frame; an empty file has one."""
    number, frame = 0, source.read(size)
    while True:
        following = source.read(size)
        last = not following
        yield number.to_bytes(_NONCE_BYTES - 1, "big") + bytes([last]), frame
        if last:
            return
        number, frame = number + 1, following


def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ConfigError(
            "Encryption needs the package cryptography: pip install 'plumbline-rlhf[privacy]'."
        ) from None
    return AESGCM(key)
