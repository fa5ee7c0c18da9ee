"""Binary min-heap of lane events, packed into one integer each so that comparing is one step.

An event is (iteration, request, kind): `iteration << 32 | request << 2 | kind`. Iterations count
decode steps, so an event stays right however long the steps take: that is what lets the loop
jump over steps.
"""

from __future__ import annotations

from bestserve.arrays import Ints
from bestserve.host.compiled import njit

FINISH, FIRST_MESSAGE, GROW = range(3)
"""Kinds: last token out; first message to the client; KV reservation used up."""

ITERATION_SHIFT = 32
REQUEST_SHIFT = 2
REQUEST_MASK = (1 << (ITERATION_SHIFT - REQUEST_SHIFT)) - 1
KIND_MASK = (1 << REQUEST_SHIFT) - 1
EVENTS_PER_REQUEST = 3


@njit(cache=True)
def pack(iteration: int, request: int, kind: int) -> int:
    """Return the event as one integer."""
    return (iteration << ITERATION_SHIFT) | (request << REQUEST_SHIFT) | kind


@njit(cache=True)
def push(heaps: Ints, lane: int, size: int, event: int) -> int:
    """Add an event to a lane's heap; return the new size."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        above = heaps[lane, parent]
        if above <= event:
            break
        heaps[lane, i] = above
        i = parent
    heaps[lane, i] = event
    return size + 1


@njit(cache=True, inline=True)
def sink(heaps: Ints, lane: int, size: int, at: int, event: int) -> None:
    """Put an event at position `at` or below it, where no earlier one is under it."""
    i = at
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and heaps[lane, child + 1] < heaps[lane, child]:
            child += 1
        if heaps[lane, child] >= event:
            break
        heaps[lane, i] = heaps[lane, child]
        i = child
    heaps[lane, i] = event


@njit(cache=True)
def remove(heaps: Ints, lane: int, size: int, at: int) -> int:
    """Delete the event at position `at` (0: the earliest); return the new size."""
    size -= 1
    event = heaps[lane, size]
    i = at
    while i > 0 and heaps[lane, (i - 1) >> 1] > event:
        heaps[lane, i] = heaps[lane, (i - 1) >> 1]
        i = (i - 1) >> 1
    sink(heaps, lane, size, i, event)
    return size


@njit(cache=True)
def rebuild(heaps: Ints, lane: int, size: int) -> None:
    """Put a lane's events into the order of a heap, whatever they are in (Floyd 1964)."""
    for start in range(size // 2):
        i = size // 2 - 1 - start
        sink(heaps, lane, size, i, heaps[lane, i])


@njit(cache=True)
def forget(heaps: Ints, lane: int, size: int, request: int) -> int:
    """Delete all events of one request; return the new size."""
    i = 0
    while i < size:
        if (heaps[lane, i] >> REQUEST_SHIFT) & REQUEST_MASK == request:
            size = remove(heaps, lane, size, i)
            i = 0
        else:
            i += 1
    return size
