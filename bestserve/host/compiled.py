"""Numba's `njit` where its cache may find no place: compile anyway, and say what would be faster.

Numba keeps compiled loops beside their source, else in the user's home. In a container that runs
without a writable home from a read-only package it finds neither, and refuses to compile at all.
"""

from __future__ import annotations

import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba


class SlowStartWarning(UserWarning):
    """Compiled loops cannot be kept for good, so starting takes longer than it must."""


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return what `numba.njit` returns for these options, cached where there is a place."""

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(**options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
        if not numba.config.CACHE_DIR:
            numba.config.CACHE_DIR = private_folder()
            _say(numba.config.CACHE_DIR)
        if numba.config.CACHE_DIR:
            return numba.njit(**options)(function)
        return numba.njit(**{**options, "cache": False})(function)

    return compiled


def private_folder() -> str:
    """Return a folder of temporary files that only this user can write; "" if there is none.

    What lies in the cache is run, so a folder that somebody else made is not used.
    """
    try:
        user = os.getuid()
        folder = Path(tempfile.gettempdir()) / f"bestserve-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except (OSError, AttributeError):  # nowhere to write, or no users as POSIX has them
        return ""
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == user
    return str(folder) if own and not found.st_mode & 0o077 else ""


@cache
def _say(folder: str) -> None:
    kept = f"kept in {folder} only" if folder else "compiled again in every process, some 20 s"
    warnings.warn(
        f"compiled loops are {kept}: set NUMBA_CACHE_DIR to a folder that can be written and lasts",
        SlowStartWarning,
        stacklevel=3,
    )
