"""Every example in a docstring is executed."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import bestserve

PACKAGE = Path(bestserve.__file__).parent


def modules() -> list[str]:
    """Return the modules whose source has an example."""
    found = [p for p in sorted(PACKAGE.rglob("*.py")) if ">>> " in p.read_text()]
    names = [".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in found]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("name", modules())
def test_examples_give_what_they_say(name: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert found.attempted > 0
    assert found.failed == 0
