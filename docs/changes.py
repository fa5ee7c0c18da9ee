"""Print the changelog's entries by date, newest first: python docs/changes.py [2026-12-01]."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def entries() -> list[tuple[str, str]]:
    """Return each entry with the date of its first line, by date, newest first."""
    command = ["git", "blame", "--date=short", "--line-porcelain", CHANGELOG.name]
    lines = subprocess.run(
        command, cwd=CHANGELOG.parent, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    found: list[list[str]] = []
    date = ""
    for line in lines:
        if line.startswith("author-time "):
            date = _day(int(line.split()[1]))
        elif line.startswith("\t- "):
            found.append([date, line[1:]])
        elif line.startswith("\t  ") and found:
            found[-1][1] += f"\n{line[1:]}"
    return sorted(((d, text) for d, text in found), key=lambda entry: entry[0], reverse=True)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


if __name__ == "__main__":
    since = sys.argv[1] if len(sys.argv) > 1 else ""
    if since and not re.fullmatch(r"\d{4}-\d\d-\d\d", since):
        sys.exit(f"{since}: not a date such as 2026-12-01")
    for day, group in groupby(entries(), key=lambda entry: entry[0]):
        if day >= since:
            print(f"## {day}\n\n" + "\n".join(text for _, text in group) + "\n")
