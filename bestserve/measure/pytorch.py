"""The one door to PyTorch: imported when kernels run, never before."""

from __future__ import annotations

import importlib
from typing import Any

from bestserve.errors import InputError

INSTALL = "pip install 'bestserve[measure]'"


def require_torch() -> Any:
    """Return the `torch` module; `InputError` with the install line when it is missing."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise InputError(
            f"bestserve measure runs kernels with PyTorch, which cannot be imported ({error}); "
            f"install it: {INSTALL}"
        ) from None
