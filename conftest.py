"""Every example in README and docs is executed: Python blocks, and `$ command` blocks."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent


class Console(CodeBlockParser):
    """A ```console block: each `$ command` must exit 0 and print what follows it.

    `...` in the expected output matches anything. Commands run in the checkout, on the
    environment that runs the tests.
    """

    language = "console"

    def evaluate(self, example: Example) -> str | None:
        """Run the commands; return what differs, or nothing."""
        checker = doctest.OutputChecker()
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        for part in ("\n" + example.parsed).split("\n$ ")[1:]:
            command, _, expected = part.partition("\n")
            while command.endswith("\\"):
                line, _, expected = expected.partition("\n")
                command = command[:-1] + line.strip()
            done = subprocess.run(
                ["bash", "-c", command],
                capture_output=True,
                text=True,
                timeout=300,
                cwd=ROOT,
                env=environment(),
                check=False,
            )
            if done.returncode:
                return f"$ {command}\nexit code {done.returncode}\n{done.stderr}"
            same = checker.check_output(expected, done.stdout, flags) or close(
                expected, done.stdout
            )
            if expected.strip() and not same:
                return f"$ {command}\nexpected:\n{expected}\ngot:\n{done.stdout}"
        return None


def environment() -> dict[str, str]:
    """Return the environment of a command: this Python first, and no width of a terminal."""
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def close(expected: str, got: str) -> bool:
    """Whether two outputs have the same words (`...` is any), and numbers within 1 %.

    The last digits of an iteration differ between machines' linear algebra.
    """
    words = [re.sub(r"[(),%:;]", " ", text).split() for text in (expected, got)]
    return len(words[0]) == len(words[1]) and all(
        a in (b, "...") or _near(a, b) for a, b in zip(*words, strict=True)
    )


def _near(a: str, b: str) -> bool:
    try:
        x, y = float(a), float(b)
    except ValueError:
        return False
    return abs(x - y) <= max(0.01 * abs(x), 1.0 if x == int(x) else 0.0)


pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE),
        Console(),
    ],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
).pytest()
