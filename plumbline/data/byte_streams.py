"""Opening files as they are saved: packed or not, in UTF-8 or with the mark of another encoding.

Everything is a stream of bytes of UTF-8 without a byte-order mark, read bit by bit, so that a file
of any size takes little memory. Two limits keep a damaged or hostile file from taking all of it:
`LARGEST_ROW` for one row, and `LARGEST_RATIO` for what a packed file may unpack to.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from plumbline.errors import DataError
from plumbline.tables import Table

MIB = 1024 * 1024
LARGEST_ROW = 16 * MIB
"""Bytes of one row; a longer one is left out (in JSON lines and CSV) or refused."""
LARGEST_RATIO = 100
"""A packed file may unpack to this many times its size, and to `ALWAYS_UNPACKED` in any case.

What is unpacked is compared with what was read for it, so that a file is refused early.
"""
ALWAYS_UNPACKED = 16 * MIB
_CHUNK = 256 * 1024

#: By the mark that a text begins with; the longer ones first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class Packing:
    """A way of packing a file: how it begins, and how it is unpacked."""

    name: str
    ending: str
    begins: bytes
    open: Callable[[Any], Any]


def _open_zstd(stream: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(stream), "zstd")


class _Streams(io.RawIOBase):
    """Packed streams one after the other. What is none behind them is an error.

    Python's own readers pass over it, and so over all that follows a damaged stream.
    """

    def __init__(self, packed: BinaryIO, decompressor: Callable[[], Any]) -> None:
        self._packed, self._make, self._now = packed, decompressor, decompressor()
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        unpacked = b""
        while not unpacked and (not self._now.eof or self._begin_next()):
            content = b""
            if self._now.needs_input:
                content, self._waiting = self._waiting or self._packed.read(_CHUNK), b""
                if not content:
                    raise EOFError("it ends in the midst of its content")
            unpacked = self._now.decompress(content, len(buffer))
        buffer[: len(unpacked)] = unpacked
        return len(unpacked)

    def _begin_next(self) -> bool:
        """Begin with the stream behind the last one, if there is any; zeros are none."""
        self._waiting = self._now.unused_data.lstrip(b"\0")
        while not self._waiting and (content := self._packed.read(_CHUNK)):
            self._waiting = content.lstrip(b"\0")
        if self._waiting:
            self._now = self._make()
        return bool(self._waiting)


PACKINGS = Table(
    "way of packing",
    (
        Packing("gzip", ".gz", b"\x1f\x8b", lambda stream: gzip.GzipFile(fileobj=stream)),
        Packing("zstd", ".zst", b"\x28\xb5\x2f\xfd", _open_zstd),
        Packing("bzip2", ".bz2", b"BZh", lambda stream: _Streams(stream, bz2.BZ2Decompressor)),
        Packing(
            "xz", ".xz", b"\xfd7zXZ\x00", lambda stream: _Streams(stream, lzma.LZMADecompressor)
        ),
    ),
)


def plain_name(path: Path) -> str:
    """Return a file's name in small letters, without the ending of a way of packing."""
    name = path.name.lower()
    for packing in PACKINGS.values():
        name = name.removesuffix(packing.ending)
    return name


def beginning(path: Path, length: int = 8) -> bytes:
    """Return a file's first bytes, as they are on disk."""
    try:
        with path.open("rb") as stream:
            return stream.read(length)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a text as UTF-8 bytes, unpacked, without a byte-order mark.

    Raises `DataError`, also while it is read, where it cannot be unpacked.
    """
    first = beginning(path)
    packing = next((p for p in PACKINGS.values() if first.startswith(p.begins)), None)
    named = next((p for p in PACKINGS.values() if path.name.lower().endswith(p.ending)), None)
    if packing is None and named is not None and first:
        raise DataError(
            f"{path} cannot be unpacked: its name ends in {named.ending}, but it is no "
            f"{named.name} file. Pack it again, or take the ending {named.ending} off."
        )
    try:
        with path.open("rb") as raw:
            stream: Any = raw
            if packing is not None:
                stream = io.BufferedReader(_Unpacked(packing.open(raw), raw, path), _CHUNK)
                _refuse_packed_again(stream.peek(8), path)
            yield _as_utf8(stream)
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if packing is None:
            raise DataError(f"{path} cannot be read: {error}.") from None
        raise DataError(
            f"{path} cannot be unpacked: {error}. It is damaged or was cut off: fetch or pack it "
            "again."
        ) from None


def _refuse_packed_again(first: bytes, path: Path) -> None:
    for inner in PACKINGS.values():
        if first.startswith(inner.begins):
            raise DataError(
                f"{path} is packed twice ({inner.name} within). Unpack it once, and give what "
                "comes of that."
            )


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a file, up to a limit."""

    def __init__(self, stream: Any, packed: BinaryIO, path: Path) -> None:
        self._stream, self._packed, self._path, self._count = stream, packed, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self._count += len(content)
        if self._count > max(ALWAYS_UNPACKED, LARGEST_RATIO * self._packed.tell()):
            raise DataError(
                f"{self._path} unpacks to more than {LARGEST_RATIO} times its size (seen after "
                f"{self._count // MIB} MiB), as no usual file does. Unpack it yourself where it is "
                "to be trusted."
            )
        buffer[: len(content)] = content
        return len(content)


def _as_utf8(stream: Any) -> BinaryIO:
    """Return a stream as UTF-8 without a byte-order mark."""
    head = stream.peek(64)[:64]
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            stream.read(len(mark))
            return stream if encoding == "utf-8" else _recoded(stream, encoding)
    if len(head) >= 4 and head[0] and head[2] and not head[1] and not head[3]:
        return _recoded(stream, "utf-16-le")  # a text of ASCII letters, without its mark
    if len(head) >= 4 and head[1] and head[3] and not head[0] and not head[2]:
        return _recoded(stream, "utf-16-be")
    return stream  # type: ignore[no-any-return]


def _recoded(stream: Any, encoding: str) -> BinaryIO:
    return io.BufferedReader(_Recoded(stream, encoding), _CHUNK)


class _Recoded(io.RawIOBase):
    """A text in another encoding, as bytes of UTF-8; what is not a character becomes U+FFFD."""

    def __init__(self, stream: Any, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            content = self._stream.read(_CHUNK)
            self._left = self._decoder.decode(content, not content).encode("utf-8", "replace")
            if not content:
                break
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
