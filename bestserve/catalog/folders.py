"""Where records live: the folder inside the package, then those that plug-ins name.

A plug-in declares an entry point in the group ``bestserve.catalog`` that loads to a path (or a
function returning one) of a folder with ``hardware/*.toml`` and ``models/<org>--<name>/``.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path

PACKAGE_DATA = Path(__file__).resolve().parent.parent / "data"
ENTRY_POINTS = "bestserve.catalog"


def package_folder(kind: str) -> Path:
    """Return the package's own folder of `kind` ("hardware", "models")."""
    return PACKAGE_DATA / kind


@lru_cache(maxsize=8)
def data_folders(kind: str) -> tuple[Path, ...]:
    """Return the existing folders of `kind`, the package's own first, then those of plug-ins."""
    roots = [PACKAGE_DATA]
    for point in entry_points(group=ENTRY_POINTS):
        named = point.load()
        roots.append(Path(named() if callable(named) else named))
    return tuple(folder for root in roots if (folder := root / kind).is_dir())
