"""Optional packages: asked for before the work, with the line that installs them."""

from __future__ import annotations

import importlib.util

from bestserve.errors import BestserveError

EXTRAS = {
    "plotly": "report",
    "jinja2": "report",
    "matplotlib": "report",
    "pandas": "frame",
    "pyarrow": "frame",
    "prometheus_client": "watch",
    "torch": "measure",
    "starlette": "ui",
    "uvicorn": "ui",
    "python_multipart": "ui",
}
"""Package → extra of bestserve that installs it."""


class MissingExtraError(BestserveError, ImportError):
    """A package that only some answers need is not installed; the message installs it."""

    exit_code = 2


def require(what: str, *packages: str) -> None:
    """Raise MissingExtraError if one of the packages is not installed; imports nothing.

    what : what needs them, as the sentence begins
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(dict.fromkeys(EXTRAS[name] for name in missing))
        raise MissingExtraError(
            f"{what} needs {' and '.join(missing)}: pip install 'bestserve[{extras}]'"
        )
