"""Inner loops as machine code: `njit` marks a function, the library made of them runs it.

Wheels bring the library. In a source checkout it is made when it is missing or older than the
loops, beside the package, or in a folder of the user where that cannot be written. Where there is
no compiler either, the loops run as the Python that they are.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.machinery
import importlib.util
import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parents[1]

CHOICE = "BESTSERVE_LOOPS"
"""Environment variable: `python` runs the loops uncompiled, `checked` with bounds checks."""


class SlowStartWarning(UserWarning):
    """Compiled loops are missing, so that answers take longer than they must."""


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Mark a function as a compiled loop; options : read by the translator, see `native`."""

    def bound(function: Callable[..., Any]) -> Any:
        made, name = library(), f"{function.__module__}.{function.__name__}"
        if made is None:
            return function
        if not hasattr(made, name):
            assert made.__spec__ is not None
            Path(str(made.__spec__.origin)).unlink()
            raise ImportError(f"{name} is new: the next start compiles it")
        return getattr(made, name)

    return bound


def table(module: str, name: str, array: Any) -> Any:
    """Give an array of constants to the loops of a module that read it by its name; return it."""
    made = library()
    if made is not None:
        made.bind(f"{module}.{name}", array)
    return array


@cache
def library() -> ModuleType | None:
    """Return the compiled loops that belong to the sources as they are; None: run Python."""
    choice = os.environ.get(CHOICE, "")
    if choice == "python":
        return None
    name = "_loops.checked.abi3.so" if choice == "checked" else "_loops.abi3.so"
    if _is_current(PACKAGE / name):
        return _loaded(PACKAGE / name)
    from bestserve.host.native.build import BuildError, build

    try:
        place = PACKAGE / name if os.access(PACKAGE, os.W_OK) else _elsewhere(name)
        with _alone(place.parent):
            if not _is_current(place):
                print("bestserve: compiling its inner loops, once, some 5 s", file=sys.stderr)
                build(place, checked=choice == "checked")
        return _loaded(place)
    except (BuildError, OSError, ImportError) as error:
        warnings.warn(
            f"inner loops run as Python, a hundred times slower: {error}",
            SlowStartWarning,
            stacklevel=3,
        )
        return None


def _is_current(place: Path) -> bool:
    """Whether a library is made of the sources as they are; it is read, not loaded, to tell."""
    from bestserve.host.native.stamp import is_current

    try:
        return is_current(place.read_bytes())
    except OSError:
        return False


def _loaded(place: Path) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader("bestserve._loops", str(place))
    spec = importlib.util.spec_from_loader("bestserve._loops", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _elsewhere(name: str) -> Path:
    """Return where the library is kept if the package's folder cannot be written."""
    which = hashlib.blake2b(os.fsencode(PACKAGE), digest_size=6).hexdigest()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    home = Path(cache) / "bestserve"
    if home.is_absolute():  # else this user has no home
        with suppress(OSError):
            home.mkdir(parents=True, exist_ok=True)
    if not (home.is_absolute() and os.access(home, os.W_OK)):
        home = private_folder()
    return home / f"{which}{name}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of processes that start at once, one compiles and the others wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def private_folder() -> Path:
    """Return a folder of temporary files that only this user can write; OSError if there is none.

    What lies in it is run, so a folder that somebody else made is not used.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"bestserve-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OSError("no folder for them can be written; name one in XDG_CACHE_HOME") from error
    found = folder.lstat()
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not own or found.st_mode & 0o077:
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder
