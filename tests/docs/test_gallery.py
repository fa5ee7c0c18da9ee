"""The gallery: every script has its picture and its place on the page, and runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = sorted((DOCS / "gallery").glob("*.py"))


def test_page_shows_each_script_and_its_picture() -> None:
    page = (DOCS / "gallery.md").read_text("utf-8")
    assert len(SCRIPTS) >= 10
    for script in SCRIPTS:
        assert f"gallery/{script.name}" in page
        assert f"(gallery/{script.stem}.png)" in page
        assert script.with_suffix(".png").exists()
        assert len(script.read_text("utf-8").splitlines()) <= 30


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_draws(script: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{script.stem}.png").stat().st_size > 2000
