"""Parts of a long run, kept on disk so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """The kept parts of a run: one file each, in a folder named after all that they depend on."""

    folder: Path

    @classmethod
    def beside(cls, home: Path, sources: Iterable[Path]) -> Parts:
        """Return the parts kept under `home` for the present contents of the files `sources`."""
        digest = hashlib.sha256()
        for path in sorted(sources):
            digest.update(f"{path.name}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        folder = home / digest.hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def kept(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Return `work(*args)`, or what an earlier run kept of it under this name."""
        path = self.folder / f"{name}.pickle"
        if path.is_file():
            found: T = pickle.loads(path.read_bytes())
            return found
        found = work(*args)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_bytes(pickle.dumps(found))
        unfinished.replace(path)
        return found

    def drop(self) -> None:
        """Remove them all, once the run has ended."""
        shutil.rmtree(self.folder)
