"""Files that are written whole or not at all, and targets that are checked before the work."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from bestserve.errors import DataError, InputError


def check_target(path: str | Path, what: str = "file") -> Path:
    """Return the path if a file can be written there; InputError, naming both, if not.

    For the beginning of a command: nobody shall wait for an answer that cannot be kept.
    """
    file = Path(path)
    if str(path) in ("", "."):
        raise InputError(f"{what}: an empty path; name a file")
    try:
        if file.is_dir():
            raise InputError(f"{what} {file}: is a folder; name a file in it")
        if _is_special(file):
            return file
        if not file.parent.is_dir():
            raise InputError(f"{what} {file}: there is no folder {file.parent}")
        with tempfile.NamedTemporaryFile(dir=_beside(file)):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} {file}: cannot be written: {_reason(error)}") from None
    return file


def check_folder(path: str | Path, what: str = "folder") -> Path:
    """Return the path of a folder, made where it is missing, if files can be written in it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {folder}: cannot be made: {_reason(error)}") from None
    check_target(folder / "file", what)
    return folder


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8 and return the path.

    The text goes into a file beside, which then takes the name: whoever reads sees the old file or
    the new one, and a full disk leaves the old one as it was. Devices and pipes are written to.
    Raises DataError naming the file.
    """
    return write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write `content` as `write_text` does."""
    file = Path(path)
    try:
        if _is_special(file):
            file.write_bytes(content)
        else:
            _replace(file.resolve(), content)
    except OSError as error:
        raise DataError(f"{file}: cannot be written: {_reason(error)}") from None
    return file


def _replace(file: Path, content: bytes) -> None:
    handle, beside = tempfile.mkstemp(prefix=f".{file.name[:40]}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(beside, _mode(file))
        os.replace(beside, file)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _mode(file: Path) -> int:
    """Return the permissions of the file that is replaced, or those that a new one gets."""
    try:
        return stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _is_special(file: Path) -> bool:
    """Whether a device, a pipe or a socket stands there, which no file can replace."""
    return file.exists() and not file.is_file() and not file.is_dir()


def _beside(file: Path) -> Path:
    return file.resolve().parent


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
