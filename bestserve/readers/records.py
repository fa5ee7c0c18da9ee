"""Reading records from disk as if a stranger wrote them: bounded, decoded, one-line refusals."""

from __future__ import annotations

from pathlib import Path

from bestserve.errors import DataError

_LONGEST_SHOWN = 300


def shown(path: Path | str) -> str:
    """Return a path as a message may quote it: one line, not endless."""
    text = str(path)
    if not text.isprintable():
        text = ascii(text)[1:-1]
    return text if len(text) <= _LONGEST_SHOWN else "..." + text[-_LONGEST_SHOWN:]


def read_text(path: Path, what: str, limit: int) -> str:
    """Return the text of a regular UTF-8 file of at most `limit` bytes; DataError otherwise.

    what : how messages call the file
    """
    where = f"{what} {shown(path)}".strip()
    try:
        if not path.exists():
            raise DataError(f"{where}: no such file; check the path")
        if not path.is_file():
            raise DataError(f"{where}: not a regular file; give the path of the file itself")
        with path.open("rb") as stream:
            raw = stream.read(min(limit, path.stat().st_size) + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{where}: cannot be read: {reason}; check the path") from None
    if len(raw) > limit:
        raise DataError(f"{where}: larger than {limit // 1000} kB, so it is none")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte {error.start} is not UTF-8 text; is it a binary file?"
        ) from None
    if "\0" in text:
        raise DataError(f"{where}: contains NUL bytes; is it a binary file?")
    return text


def user_path(text: str | Path) -> Path:
    """Return the path with "~" expanded where that names a home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; a string that can be no path at all is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def looks_like_path(name: str, suffix: str) -> bool:
    """Whether `name` is meant as a path: it ends so, starts like one, or is a file in a folder.

    A folder does not count: who works beside a checkout of vllm/ still means the engine.
    """
    if name.endswith(suffix) or name.startswith(("./", "../", "~/", ".\\", "..\\")):
        return True
    try:
        return ("/" in name or "\\" in name) and Path(name).is_file()
    except (OSError, ValueError):  # too long, or a NUL inside
        return False
