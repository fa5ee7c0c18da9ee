"""Sphinx configuration; `make docs` builds strictly."""

project = "bestserve"
author = "The bestserve developers"
extensions = ["myst_parser"]
html_theme = "furo"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
