"""Whether a library of compiled loops belongs to the sources as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1]

MARK = b"compiled loops of "
"""What a library's stamp begins with; it ends with a zero byte."""


def stamp(sources: Iterable[str]) -> str:
    """Return what changes with these files, by their paths in the package, and the translator."""
    sources = sorted(sources)
    digest = hashlib.blake2b(digest_size=16)
    translator = sorted(path for path in HERE.iterdir() if path.suffix in (".py", ".c", ".h"))
    for path in [*translator, *(PACKAGE / source for source in sources)]:
        try:
            digest.update(path.read_bytes())
        except OSError:
            digest.update(b"gone")
    return MARK.decode() + " ".join([digest.hexdigest(), *sources])


def is_current(library: bytes) -> bool:
    """Whether the stamp in a library's bytes is that of the sources as they are."""
    start = library.find(MARK)
    found = library[start : library.find(b"\0", start)].decode()
    return start >= 0 and found == stamp(found.removeprefix(MARK.decode()).split(" ")[1:])
