"""Every example in README and docs is executed: Python blocks, and `$ command` blocks."""

from __future__ import annotations

import doctest
import os
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
                env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                check=False,
            )
            if done.returncode:
                return f"$ {command}\nexit code {done.returncode}\n{done.stderr}"
            if expected.strip() and not checker.check_output(expected, done.stdout, flags):
                return f"$ {command}\nexpected:\n{expected}\ngot:\n{done.stdout}"
        return None


pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE),
        Console(),
    ],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
).pytest()
