"""Binary min-heap of (time, number) pairs in two arrays; equal times leave by number."""

from __future__ import annotations

from bestserve.arrays import Floats, Ints
from bestserve.host.compiled import njit


@njit(cache=True)
def put(keys: Floats, values: Ints, size: int, key: float, value: int) -> int:
    """Add (key, value); return the new size."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if keys[parent] < key or (keys[parent] == key and values[parent] <= value):
            break
        keys[i], values[i] = keys[parent], values[parent]
        i = parent
    keys[i], values[i] = key, value
    return size + 1


@njit(cache=True)
def drop(keys: Floats, values: Ints, size: int) -> int:
    """Delete the first pair; return the new size."""
    size -= 1
    key, value = keys[size], values[size]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and (
            keys[child + 1] < keys[child]
            or (keys[child + 1] == keys[child] and values[child + 1] < values[child])
        ):
            child += 1
        if key < keys[child] or (key == keys[child] and value <= values[child]):
            break
        keys[i], values[i] = keys[child], values[child]
        i = child
    keys[i], values[i] = key, value
    return size
