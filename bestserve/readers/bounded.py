"""Files from strangers, opened within bounds: regular, no larger than a limit, UTF-8, one refusal.

Whatever is wrong with a file becomes a `DataError` of one line that names it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bestserve.errors import DataError
from bestserve.readers.paths import shown

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of archives."""
_PIECE = 1 << 20
"""Bytes asked of a file at a time."""


@contextmanager
def opened(
    path: Path, where: str, limit: int, advice: str = "is it the right file?"
) -> Iterator[BinaryIO]:
    """Open a regular file of at most `limit` bytes; what goes wrong inside is a DataError, too.

    where : how messages call the file; advice : what to do about one that is larger
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{where}: not a regular file; give the path of the file itself")
        if status.st_size > limit:
            size = f"{status.st_size} bytes, more than the limit of {limit}"
            raise DataError(f"{where}: {size}; {advice}")
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError:
        raise DataError(f"{where}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{where}: cannot be read: {reason[:80]}; check the path") from None


def rest_of(stream: BinaryIO, where: str, limit: int) -> bytes:
    """Return what is left of a file; DataError where it grew beyond `limit` meanwhile [bytes]."""
    raw = bytearray()  # piece by piece: one read of `limit` bytes would reserve them all at once
    while piece := stream.read(min(_PIECE, limit + 1 - len(raw))):
        raw += piece
    if len(raw) > limit:
        raise DataError(f"{where}: grew beyond the limit of {limit} bytes while being read")
    return bytes(raw)


def decoded(raw: bytes, where: str) -> str:
    """Return UTF-8 text; DataError for anything else."""
    refuse_binary(raw, where)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} is not UTF-8 text") from None


def refuse_binary(raw: bytes, where: str) -> None:
    """Refuse what begins like an archive or UTF-16, or holds NUL bytes, as no text does."""
    for magic, what in _PACKED.items():
        if raw.startswith(magic):
            raise DataError(f"{where}: a {what} archive; unpack it first, files are read as text")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{where}: UTF-16 text; save it as UTF-8")
    if b"\0" in raw:
        raise DataError(f"{where}: binary data, not text")


def read_text(path: Path, what: str, limit: int) -> str:
    """Return the text of a regular UTF-8 file of at most `limit` bytes; DataError otherwise.

    what : how messages call the file
    """
    where = f"{what} {shown(path)}".strip()
    with opened(path, where, limit) as stream:
        raw = rest_of(stream, where, limit)
    return decoded(raw, where)
