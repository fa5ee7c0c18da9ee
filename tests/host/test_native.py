"""Compiled loops do what the Python they are made of does, or are refused with file and line."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bestserve.host.native.build import compile_c
from bestserve.host.native.program import Program, UntranslatableError
from bestserve.host.native.wrappers import translated

HEAD = """
from __future__ import annotations
import math
from typing import NamedTuple
import numpy as np
from bestserve.arrays import Bools, Floats, Ints, Ints32
from bestserve.host.compiled import njit
FIRST, SECOND = range(2)
HALF = 1 / 2
BEGIN = 8
EIGHTH, TENTH, TWELFTH = range(BEGIN, 13, 2)
ONE, TWO = 1, 2.5
THIRD, FOURTH = range(len("ab"), 4)
"""

LOOPS = """
class Pair(NamedTuple):
    scale: float
    rows: Floats

@njit(cache=True)
def whole(a: int, b: int) -> tuple[int, int, float]:
    return a // b, a % b, a / b

@njit(cache=True)
def ends(x: Floats) -> tuple[float, float, int]:
    return x[-1], x[0], x.size

@njit(cache=True)
def choice(a: float, b: float) -> tuple[float, float]:
    return min(a, b), max(a, b)

@njit(cache=True)
def truncated(x: float) -> int:
    return int(x) + math.ceil(x)

@njit(cache=True)
def inverse(x: float) -> float:
    return 1.0 / x

@njit(cache=True, error_model="numpy")
def unchecked(x: float) -> float:
    return 1.0 / x

@njit(cache=True)
def scaled(pair: Pair, powers: Floats) -> Floats:
    scale, rows = pair
    out = np.zeros((rows.shape[0], 2))
    for i in range(rows.shape[0]):
        row = rows[i]
        out[i, FIRST] = row.sum() * scale**2
        out[i, SECOND] = powers[np.searchsorted(powers, row[0])] ** HALF
    return out

@njit(cache=True)
def swapped(x: Floats, order: Ints, seen: Ints32, kept: Bools) -> int:
    count = 0
    for i in range(x.size - 1, 0, -1):
        if not kept[i] or 0 <= order[i] < 2:
            continue
        x[i], x[i - 1] = x[i - 1], x[i]
        order[i] += i
        seen[i] |= 4
        count += 1
    return count

@njit(cache=True)
def _root(n: int) -> Floats:
    x = np.empty(n)
    for i in range(n):
        x[i] = math.sqrt(i)
    return x

@njit(cache=True)
def nested(n: int) -> float:
    total = 0.0
    k = n
    while True:
        total += _root(k)[k - 1] if k > 2 else 0.25
        k -= 1
        if k == 0:
            break
    return total

@njit(cache=True)
def constants() -> tuple[int, int, int, float]:
    return EIGHTH, TENTH, TWELFTH, ONE + TWO

@njit(cache=True)
def beyond(x: Floats, i: int) -> float:
    return x[i]
"""


def package(folder: Path, text: str) -> Path:
    """Write a package with one module of loops."""
    (folder / "some").mkdir()
    (folder / "some" / "loops.py").write_text(HEAD + text)
    return folder / "some"


def compiled(folder: Path, *, checked: bool = False) -> ModuleType:
    """Translate, compile and load the loops of `package`."""
    library = folder / "_loops.so"
    compile_c(translated(Program(folder), "test"), library, checked=checked)
    loader = ExtensionFileLoader("_loops", str(library))
    spec = importlib.util.spec_from_loader("_loops", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Any]]:
    """The same function as Python, and compiled with bounds checks."""
    folder = package(tmp_path_factory.mktemp("loops"), LOOPS)
    library = compiled(folder, checked=True)
    plain: dict[str, Any] = {"__name__": "plain"}
    text = (folder / "loops.py").read_text()
    marker = "from bestserve.host.compiled import njit"
    text = text.replace(marker, "njit = lambda **options: lambda function: function")
    exec(compile(text, "loops.py", "exec"), plain)
    return lambda name: (plain[name], getattr(library, f"some.loops.{name}"))


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    *(("whole", pair) for pair in [(7, 3), (-7, 3), (7, -3), (-7, -3), (6, 3), (-6, 3)]),
    ("ends", (np.array([1.0, 2.0, 5.0]),)),
    ("ends", (np.arange(12.0)[::3],)),
    ("choice", (1.0, 2.0)),
    ("choice", (-0.0, 0.0)),
    ("truncated", (-2.5,)),
    ("truncated", (np.float64(7.1),)),
    ("inverse", (4,)),
    ("scaled", ((3.0, np.arange(6.0).reshape(2, 3)), np.array([0.0, 1.0, 4.0]))),
    ("scaled", ((3.0, np.arange(12.0).reshape(3, 4)[:2, ::2].T), np.array([0.0, 1.0, 9.0]))),
    ("nested", (np.int64(9),)),
    ("constants", ()),
]


@pytest.mark.parametrize(("name", "given"), CALLS)
def test_answers_are_those_of_python(both, name, given):
    plain, fast = both(name)
    assert np.array_equal(plain(*given), fast(*given))
    assert isinstance(plain(*given), type(fast(*given)))


def test_an_inlined_loop_stands_in_its_callers(tmp_path: Path) -> None:
    text = """
@njit(cache=True, inline=True)
def grow(x: Floats, by: float) -> None:
    x[0] += by

@njit(cache=True)
def grown(x: Floats, n: int) -> float:
    for i in range(n):
        grow(x, 0.5 * i)
    return x[0]
"""
    folder = package(tmp_path, text)
    code = translated(Program(folder), "test")
    assert "static inline __attribute__((always_inline)) void some_loops_grow(" in code
    assert "static double some_loops_grown(" in code
    x = np.array([1.0])
    assert getattr(compiled(folder), "some.loops.grown")(x, 4) == 4.0
    assert x[0] == 4.0


def test_arrays_are_changed_in_place(both):
    made = []
    for loop in both("swapped"):
        x, order = np.arange(5.0), np.array([0, 1, 2, -3, 4])
        seen, kept = np.zeros(5, dtype=np.int32), np.array([True, True, False, True, True])
        made.append((loop(x, order, seen, kept), x, order, seen))
    assert made[0][0] == made[1][0] == 2
    for one, other in zip(made[0][1:], made[1][1:], strict=True):
        assert np.array_equal(one, other)


def test_what_is_no_number_comes_first_as_in_python(both):
    for loop in both("choice"):
        assert all(math.isnan(x) for x in loop(math.nan, 1.0))
        assert loop(1.0, math.nan) == (1.0, 1.0)


@pytest.mark.parametrize(("name", "given", "error"), [
    ("inverse", (0.0,), ZeroDivisionError),
    ("whole", (1, 0), ZeroDivisionError),
    ("truncated", (math.nan,), ValueError),
    ("beyond", (np.arange(3.0), 3), IndexError),
])  # fmt: skip
def test_errors_are_those_of_python(both, name, given, error):
    plain, fast = both(name)
    with pytest.raises(error):
        plain(*given)
    for _ in range(2):  # an error leaves nothing behind
        with pytest.raises(error, match=f"in compiled loop some.loops.{name}"):
            fast(*given)


def test_an_infinite_index_is_an_error_and_an_unchecked_division_is_not(both):
    with pytest.raises(ValueError, match="no integer"):
        both("truncated")[1](math.inf)
    assert both("unchecked")[1](0.0) == math.inf


@pytest.mark.parametrize(("name", "given", "why"), [
    ("ends", (np.arange(3),), "1-dimensional array of 'd'"),
    ("ends", (np.ones((2, 2)),), "got 2 of 'd'"),
    ("ends", (), "takes 1 arguments, not 0"),
    ("ends", (3.0,), "bytes-like|buffer"),
    ("inverse", ("x",), "real number"),
    ("whole", (1.5, 1), "integer"),
    ("scaled", ((1.0,), np.ones(1)), "expected a Pair"),
    ("swapped", (np.arange(8.0)[::2], np.ones(4, int), np.ones(4, np.int32), np.ones(4, bool)),
     "must be contiguous"),
])  # fmt: skip
def test_wrong_arguments_are_type_errors(both, name, given, why):
    with pytest.raises(TypeError, match=why):
        both(name)[1](*given)


def test_an_array_that_cannot_be_written_is_left_alone(both):
    x = np.arange(4.0)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        both("swapped")[1](x, np.ones(4, int), np.ones(4, np.int32), np.ones(4, bool))


@pytest.mark.parametrize(("body", "why"), [
    ("return sum([i for i in range(3)])", "not in the subset of compiled loops"),
    ("return x + 1", "arithmetic of arrays; write the loop out"),
    ("x[0] = math.gamma(2.0)", "not in the subset"),
    ("n = 1\n    n = x", "n is both"),
    ("for v in x:\n        pass", "not in the subset"),
    ("x[1:] = 0.0", "assigns arrays; write the loop out"),
    ("return unknown", "what is unknown"),
    ("return x[THIRD]", "what is THIRD"),
    ("return x[0.5]", "must be an integer"),
    ("return x[::2]", "no such view"),
])  # fmt: skip
def test_what_cannot_be_compiled_is_refused_with_its_place(tmp_path, body, why):
    text = f"@njit(cache=True)\ndef loop(x: Floats) -> float:\n    {body}\n"
    folder = package(tmp_path, text)
    with pytest.raises(UntranslatableError, match=why) as caught:
        translated(Program(folder), "")
    assert "loops.py:1" in str(caught.value)  # lines 13 and following


PREDICT = [
    "predict", "1m-tp1", "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm",
    "--input-len", "500", "--output-len", "50", "--request-rate", "2", "--format", "json",
]  # fmt: skip


@pytest.mark.slow
def test_a_prediction_is_the_same_without_a_compiler():
    """All layers at once: each formula's loop against the Python that it is made of."""
    answers = []
    for choice in ("python", ""):
        done = subprocess.run(
            [sys.executable, "-m", "bestserve", *PREDICT],
            capture_output=True, text=True, check=True,
            env={**os.environ, "BESTSERVE_LOOPS": choice},
        )  # fmt: skip
        answers.append(json.loads(done.stdout))
    numbers = [leaves(answer) for answer in answers]
    assert len(numbers[0]) > 30
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-12)


def leaves(value: Any) -> list[float]:
    """Return all numbers in a JSON value, in order."""
    if isinstance(value, dict):
        return [x for part in value.values() for x in leaves(part)]
    if isinstance(value, list):
        return [x for part in value for x in leaves(part)]
    return [float(value)] if isinstance(value, int | float) else []
