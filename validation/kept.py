"""Rows of a study that is asked bit by bit: each question once, its row kept beside the report.

    python validation/winners.py --minutes 6     # asks more questions, then writes the report

A stopped study goes on where it ended; a row says on which day it was asked, and whatever the
product has become since then, it says what it was told that day. `--again` asks all anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bestserve.errors import BestserveError

Row = dict[str, Any]


def kept(path: Path) -> list[Row]:
    """Return the rows of a file, in order of their questions; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted(map(json.loads, lines), key=lambda row: int(row["number"]))


def more(path: Path, ask: Callable[[int], Row], count: int, minutes: float) -> list[Row]:
    """Ask the first `count` questions that are not in a file yet, and return all its rows.

    ask : question number → its row; what it refuses (`BestserveError`) is a row, too. No question
    begins after `minutes` of processor time.
    """
    known = {int(row["number"]) for row in kept(path)}
    started = time.process_time()
    for number in range(count):
        if time.process_time() - started > 60 * minutes:
            break
        if number in known:
            continue
        try:
            row = ask(number)
        except BestserveError as error:
            row = {"refused": str(error)[:200]}
        row = {"number": number, "asked": f"{datetime.now(UTC):%Y-%m-%d}"} | row
        print(json.dumps(row), flush=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return kept(path)


def days(rows: list[Row]) -> str:
    """Return when rows were asked: a day, or the first and the last one."""
    asked = sorted({str(row["asked"]) for row in rows})
    return " to ".join(dict.fromkeys((asked[0], asked[-1]))) if asked else "never"


def study(
    script: str, seed: int, count: int, ask: Callable[[int, int], Row], table: Callable[..., str]
) -> None:
    """Ask more of a study's questions, as the command line says, and write its report.

    script : path of the study; its rows and its report have its name. seed : of the report; count :
    questions that it is to have; ask : (seed, number) → row; table : rows and seed → report
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--minutes", type=float, default=5.0, help="of processor time")
    parser.add_argument("--rows", type=Path, help="default: beside the script")
    parser.add_argument("--again", action="store_true", help="forget the rows there are")
    options = parser.parse_args()
    beside = Path(script).with_suffix(".jsonl")
    path = options.rows or beside
    if options.again:
        path.unlink(missing_ok=True)
    rows = more(path, lambda number: ask(options.seed, number), options.count, options.minutes)
    text = table(rows, options.seed)
    if path == beside:
        beside.with_suffix(".md").write_text(text)
    else:
        print(text, end="")
