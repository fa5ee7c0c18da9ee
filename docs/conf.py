"""Sphinx configuration; `make docs` builds strictly."""

from __future__ import annotations

import re

project = "bestserve"
author = "The bestserve developers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

SECTION = re.compile(r"^(Parameters|Returns|Raises|Examples?)$")
ENTRY = re.compile(r"^[\w*.`][^.;]* : ")
SPECIAL = re.compile(r"([*|\\]|_(?=\W|$))")


def as_rst(docstring: list[str]) -> list[str]:
    """Return a docstring of ours as reStructuredText: prose, examples, and lists `name : text`.

    Names in single backticks are code; stars and bars mean themselves.
    """
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(docstring).strip("\n")):
        lines = paragraph.split("\n")
        if lines[0].lstrip().startswith(">>>"):
            out += [line.strip() for line in lines]
        elif len(lines) > 1 and SECTION.match(lines[0]) and set(lines[1].strip()) == {"-"}:
            out += [f"**{lines[0]}**", "", *entries(lines[2:])]
        elif any(ENTRY.match(line) for line in lines) or any(line[:1] == " " for line in lines):
            out += entries(lines)
        else:
            out += [escaped(line) for line in lines]
        out.append("")
    return out


def entries(lines: list[str]) -> list[str]:
    """Return lines as they are broken, continuation lines joined to the one they belong to."""
    joined: list[str] = []
    for line in lines:
        if joined and line[:1] == " " and joined[-1]:
            joined[-1] += " " + line.strip()
        else:
            joined.append(line.strip())
    return [f"| {escaped(line)}" for line in joined]


def escaped(line: str) -> str:
    """Return a line of prose with code marked and special characters made plain."""
    parts = line.split("`")
    if len(parts) % 2 == 0:
        return SPECIAL.sub(r"\\\1", line.replace("`", "'"))
    prose = (SPECIAL.sub(r"\\\1", part) for part in parts[::2])
    code = (f"``{part.strip()}``" if part.strip() else "" for part in parts[1::2])
    return "".join(a + b for a, b in zip(prose, [*code, ""], strict=True))


def setup(app):  # type: ignore[no-untyped-def]
    """Have autodoc read docstrings as they are written here."""

    def rewrite(app, what, name, thing, options, lines):  # type: ignore[no-untyped-def]
        lines[:] = as_rst(lines)

    app.connect("autodoc-process-docstring", rewrite)
