"""Paths as users write them, and as messages may quote them."""

from __future__ import annotations

from pathlib import Path

_LONGEST_SHOWN = 300


def shown(path: Path | str) -> str:
    """Return a path as a message may quote it: one line, not endless."""
    text = str(path)
    if not text.isprintable():
        text = ascii(text)[1:-1]
    return text if len(text) <= _LONGEST_SHOWN else "..." + text[-_LONGEST_SHOWN:]


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
