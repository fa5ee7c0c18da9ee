"""Pages hang together: links and anchors resolve, every page is reachable, nothing is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bestserve
from bestserve.cli import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
ELSEWHERE = ("http://", "https://", "mailto:")


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^(```|~~~).*?^\1", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+\s+(.+?)\s*$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def toctree_entries() -> list[str]:
    """Return the pages that toctrees name, relative to the documentation's root."""
    found = []
    for page in PAGES:
        blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)
        lines = [line.strip() for block in blocks for line in block.splitlines()]
        names = [line for line in lines if line and not line.startswith(":")]
        found += [
            (page.parent / name).resolve().relative_to(DOCS.resolve()).as_posix() for name in names
        ]
    return found


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *PAGES], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_links_resolve(page: Path) -> None:
    for link in links(page):
        if link.startswith(ELSEWHERE):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.name} links to {link}: no such heading"


def test_anchors_follow_github() -> None:
    slugs = anchors(DOCS / "dispatch.md")
    assert "run-it-on-a-gpu" in slugs
    assert "is-decode-limited-by-the-cpu" in slugs


def test_every_page_is_in_one_toctree() -> None:
    pages = {p.relative_to(DOCS).with_suffix("").as_posix() for p in PAGES} - {"index"}
    entries = toctree_entries()
    assert sorted(pages - set(entries)) == [], "add these to a toctree in docs/index.md"
    assert sorted(set(entries) - pages) == [], "named in a toctree, but there is no such page"
    assert len(entries) == len(set(entries))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_reference(command: str) -> None:
    assert f"`bestserve {command}`" in (DOCS / "reference.md").read_text("utf-8")


@pytest.mark.parametrize("name", [n for n in bestserve.__all__ if n != "__version__"])
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert f"`bestserve.{name}`" in (DOCS / "reference.md").read_text("utf-8")


def test_the_problem_file_of_the_how_to_is_the_one_shown() -> None:
    page = (DOCS / "how-to" / "size-a-deployment.md").read_text("utf-8")
    shown = re.search(r"^```toml\n# docs/how-to/chat.toml\n(.*?)^```", page, re.S | re.M)
    assert shown is not None
    assert shown[1] == (DOCS / "how-to" / "chat.toml").read_text("utf-8")
