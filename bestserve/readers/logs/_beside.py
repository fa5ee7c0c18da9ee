"""What clients write into a second file of the same folder: settings, percentiles."""

from __future__ import annotations

from bestserve.errors import DataError
from bestserve.readers.logs._record import Record
from bestserve.readers.untrusted import Source, open_source


def beside(source: Source, name: str) -> Source | None:
    """Return the file `name` beside a log; None where there is none.

    One that cannot be read leaves a warning. A link is not followed.
    """
    path = source.path.with_name(name)
    if path == source.path or path.is_symlink() or not path.is_file():
        return None
    try:
        return open_source(path)
    except DataError as error:
        source.warnings.append(str(error))
        return None


def settings_beside(source: Source, *names: str) -> Record:
    """Return the settings in the first of these files that holds an object; empty without one."""
    for name in names:
        found = beside(source, name)
        if found is not None and isinstance(found.value, dict):
            return Record(found.value, found.name, found)
    return Record({}, source.name, source)
