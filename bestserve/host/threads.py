"""BLAS on one thread while we compute, and as it was before when the last of us is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCK = threading.Lock()
_inside = 0
_limits: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS on one thread inside: on small matrices its threads wait for each other.

    The setting belongs to the whole process. Where several threads compute at once, the first to
    come sets it and the last to leave restores what the host program had.
    """
    global _inside, _limits
    from threadpoolctl import threadpool_limits

    with _LOCK:
        if _inside == 0:
            _limits = threadpool_limits(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if _inside == 0:
                _limits.restore_original_limits()
                _limits = None
