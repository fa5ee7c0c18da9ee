"""Answers that can be drawn. How is the business of the layer above, which is looked up by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from bestserve.results.document import Document

DRAWING = "bestserve.reporting.drawing"
"""Knows the pictures of every answer, and needs Plotly or Matplotlib only when it draws."""


class Drawn(Document):
    """An answer with pictures: `plot` for a notebook, `save` for a file."""

    __slots__ = ()

    def plot(self, key: str | None = None) -> Any:
        """Return a Plotly figure: the first of the answer's pictures, or the one named `key`.

        InputError names the pictures that there are; MissingExtraError says what to install when
        Plotly is missing.
        """
        return import_module(DRAWING).plot(self, key)

    def save(self, path: str | Path) -> Path:
        """Write all pictures into one .html, .png, .svg or .pdf, or the rows into a .csv.

        Returns the path. InputError for another ending or a place that cannot be written;
        MissingExtraError says what to install.
        """
        saved: Path = import_module(DRAWING).save([self], path)
        return saved
