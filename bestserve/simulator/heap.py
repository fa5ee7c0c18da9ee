"""Binary min-heap of lane events, packed into one integer each so that comparing is one step.

An event is (iteration, request, kind): `iteration << 32 | request << 2 | kind`. Iterations count
decode steps, so an event stays right however long the steps take: that is what lets the loop
jump over steps.
"""

from __future__ import annotations

from numba import njit

from bestserve.simulator.layout import Ints64

FINISH, FIRST_MESSAGE, GROW = range(3)
"""Kinds: last token out; first message to the client; KV reservation used up."""

ITERATION_SHIFT = 32
REQUEST_SHIFT = 2
REQUEST_MASK = (1 << (ITERATION_SHIFT - REQUEST_SHIFT)) - 1
KIND_MASK = (1 << REQUEST_SHIFT) - 1
EVENTS_PER_REQUEST = 3


@njit(cache=True, inline="always")
def pack(iteration: int, request: int, kind: int) -> int:
    """Return the event as one integer."""
    return (iteration << ITERATION_SHIFT) | (request << REQUEST_SHIFT) | kind


@njit(cache=True)
def push(heap: Ints64, size: int, event: int) -> int:
    """Add an event; return the new size."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        above = heap[parent]
        if above <= event:
            break
        heap[i] = above
        i = parent
    heap[i] = event
    return size + 1


@njit(cache=True)
def remove(heap: Ints64, size: int, at: int) -> int:
    """Delete the event at position `at` (0: the earliest); return the new size."""
    size -= 1
    event = heap[size]
    i = at
    while i > 0 and heap[(i - 1) >> 1] > event:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= event:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = event
    return size


@njit(cache=True)
def forget(heap: Ints64, size: int, request: int) -> int:
    """Delete all events of one request; return the new size."""
    i = 0
    while i < size:
        if (heap[i] >> REQUEST_SHIFT) & REQUEST_MASK == request:
            size = remove(heap, size, i)
            i = 0
        else:
            i += 1
    return size
