"""Compiled loops from source to shared library: once for a wheel, or when sources have changed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from bestserve.host.native.stamp import HERE, PACKAGE, stamp

FLAGS = [
    "-O2", "-fvect-cost-model=dynamic",
    "-fPIC", "-shared", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off",
]  # fmt: skip
"""Floating-point results are those of Python's: nothing is contracted or reordered."""


class BuildError(Exception):
    """The loops could not be compiled here."""


def build(target: Path, *, checked: bool = False) -> None:
    """Compile the loops into `target`, which is replaced in one step.

    checked : with bounds checks
    """
    from bestserve.host.native.program import Program
    from bestserve.host.native.wrappers import translated

    if sys.platform == "win32" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise BuildError("compiled loops need Linux or macOS and a Python with its lock")
    program = Program(PACKAGE)
    translated(program, "")  # reads all that the stamp covers
    sources = [path.relative_to(PACKAGE).as_posix() for path in program.sources]
    compile_c(translated(program, stamp(sources)), target, checked=checked)


def compile_c(text: str, target: Path, *, checked: bool = False) -> None:
    """Compile one C file into a library, which appears in one step."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    flags = [*FLAGS, f"-I{HERE}", *(["-DCHECK_BOUNDS"] if checked else [])]
    if sys.platform == "darwin":
        flags += ["-undefined", "dynamic_lookup"]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".loops-") as folder:
        source, made = Path(folder) / "loops.c", Path(folder) / target.name
        source.write_text(text, encoding="utf-8")
        command = [*compiler, *flags, str(source), "-o", str(made), "-lm"]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise BuildError(f"no compiler: {error}") from None
        if done.returncode:
            raise BuildError(f"{shlex.join(compiler)} failed: {done.stderr[-500:]}")
        os.replace(made, target)
