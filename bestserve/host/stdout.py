"""Standard output carries the answer and nothing else, whatever a library prints."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()


@contextmanager
def answers_alone() -> Iterator[None]:
    """Keep `sys.stdout` for answers: what else writes to file descriptor 1 goes to stderr.

    For a whole command; compiled libraries write to the descriptor past Python's stream.
    """
    if not _has_descriptor(sys.stdout):
        yield
        return
    before = sys.stdout
    before.flush()
    kept = os.dup(1)
    sys.stdout = open(  # noqa: SIM115
        kept, "w", encoding=before.encoding, errors=before.errors, closefd=False
    )
    try:
        os.dup2(sys.stderr.fileno() if _has_descriptor(sys.stderr) else _nowhere(), 1)
        yield
    finally:
        _flush_c()
        try:
            sys.stdout.flush()
        except OSError:  # full, or nobody reads it any more; the command has said so
            os.dup2(_nowhere(), kept)
            sys.stdout.flush()
        os.dup2(kept, 1)
        sys.stdout = before
        os.close(kept)


@contextmanager
def nothing_printed() -> Iterator[None]:
    """Discard what is written to file descriptor 1 inside; for a few lines of foreign code."""
    with _LOCK:
        try:
            kept = os.dup(1)
        except OSError:  # closed: there is nothing to keep clean
            yield
            return
        _flush_c()
        nowhere = _nowhere()
        os.dup2(nowhere, 1)
        try:
            yield
        finally:
            _flush_c()
            os.dup2(kept, 1)
            os.close(kept)
            os.close(nowhere)


def _flush_c() -> None:
    """Flush the buffers of C's standard streams, which know nothing of Python's."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)


def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _has_descriptor(stream: object) -> bool:
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() >= 0
    except (OSError, ValueError):
        return False
