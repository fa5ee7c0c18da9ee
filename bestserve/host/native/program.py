"""What is to be compiled: marked functions with the constants and records that they use."""

from __future__ import annotations

import ast
import graphlib
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

MARK = "njit"


class UntranslatableError(Exception):
    """A marked function uses what compiled loops cannot."""


@dataclass
class Record:
    """A NamedTuple that marked functions take."""

    name: str
    fields: dict[str, str]


@dataclass
class Function:
    """One marked function."""

    module: Module
    node: ast.FunctionDef
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name in Python, with the module."""
        return f"{self.module.name}.{self.node.name}"

    @property
    def c(self) -> str:
        """Its name in C."""
        return self.name.removeprefix("bestserve.").replace(".", "_")

    @property
    def checked(self) -> bool:
        """Whether a division by zero is an error, as in Python."""
        return self.options.get("error_model") != "numpy"

    @property
    def inlined(self) -> bool:
        """Whether its C stands in its callers: phases of a loop take less time than a call."""
        return self.options.get("inline") is True

    @property
    def parameters(self) -> dict[str, str]:
        """Names and annotations of what it takes."""
        return {a.arg: ast.unparse(a.annotation) for a in self.node.args.args if a.annotation}

    @cached_property
    def names(self) -> frozenset[str]:
        """All names that occur in it."""
        return frozenset(n.id for n in ast.walk(self.node) if isinstance(n, ast.Name))

    @cached_property
    def callees(self) -> dict[str, Function]:
        """The marked functions that it calls, by the name it knows them by."""
        found = ((name, self.module.resolve(name)) for name in sorted(self.names))
        return {name: it for name, it in found if isinstance(it, Function)}

    def refused(self, node: ast.AST, why: str) -> UntranslatableError:
        """Return the error that says where and why."""
        line = getattr(node, "lineno", self.node.lineno)
        return UntranslatableError(f"{self.module.path}:{line}: {why}: {ast.unparse(node)}")


@dataclass
class Module:
    """One source file and what it defines."""

    name: str
    path: Path
    program: Program
    functions: dict[str, Function] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    constants: dict[str, float | int] = field(default_factory=dict)
    arrays: set[str] = field(default_factory=set)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)

    def resolve(self, name: str) -> Function | Record | float | int | None:
        """Return what a name means here, through imports; None if it means nothing compiled."""
        if name in self.imported:
            module, original = self.imported[name]
            there = self.program.module(module)
            return there.resolve(original) if there else None
        for known in (self.functions, self.records, self.constants):
            if name in known:
                return known[name]
        return None


class Program:
    """All marked functions of a package."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.modules: dict[str, Module | None] = {}
        marked = [path for path in sorted(package.rglob("*.py")) if f"@{MARK}" in _text(path)]
        for path in marked:
            if package / "host" not in path.parents:
                self.module(self._name(path))

    @property
    def sources(self) -> list[Path]:
        """The files that were read, as they decide what is compiled."""
        return sorted(m.path for m in self.modules.values() if m is not None)

    def functions(self) -> list[Function]:
        """All marked functions, callees before callers."""
        every = [f for m in list(self.modules.values()) if m for f in m.functions.values()]
        by_name = {f.name: f for f in every}
        graph = {f.name: {g.name for g in f.callees.values()} for f in every}
        return [by_name[name] for name in graphlib.TopologicalSorter(graph).static_order()]

    def module(self, name: str) -> Module | None:
        """Return a module of the package, read once; None for others."""
        if name not in self.modules:
            path = self.package.parent.joinpath(*name.split(".")).with_suffix(".py")
            if not path.exists():
                path = path.with_suffix("") / "__init__.py"
            inside = name.split(".")[0] == self.package.name and path.exists()
            self.modules[name] = self._read(name, path) if inside else None
        return self.modules[name]

    def _name(self, path: Path) -> str:
        return ".".join(path.relative_to(self.package.parent).with_suffix("").parts)

    def _read(self, name: str, path: Path) -> Module:
        module = Module(name, path, self)
        self.modules[name] = module
        for node in ast.parse(_text(path)).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    module.imported[alias.asname or alias.name] = (node.module, alias.name)
            elif isinstance(node, ast.FunctionDef):
                for options in _marks(node):
                    module.functions[node.name] = Function(module, node, options)
            elif isinstance(node, ast.ClassDef):
                if any(isinstance(b, ast.Name) and b.id == "NamedTuple" for b in node.bases):
                    module.records[node.name] = _record(node)
            elif isinstance(node, ast.Assign):
                _constants(module, node)
        return module


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _marks(node: ast.FunctionDef) -> Iterator[dict[str, Any]]:
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == MARK:
            yield {k.arg: ast.literal_eval(k.value) for k in mark.keywords if k.arg}


def _record(node: ast.ClassDef) -> Record:
    fields = {
        line.target.id: ast.unparse(line.annotation)
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }
    return Record(node.name, fields)


def _constants(module: Module, node: ast.Assign) -> None:
    """Note the numbers that a module-level assignment defines, and names of what it computes."""
    for target in node.targets:
        if isinstance(target, ast.Tuple):
            with suppress(LookupError):
                for name, value in zip(target.elts, _numbers(module, node.value), strict=True):
                    module.constants[ast.unparse(name)] = value
        elif isinstance(target, ast.Name):
            try:
                module.constants[target.id] = _number(module, node.value)
            except LookupError:
                module.arrays.add(target.id)


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.LShift: operator.lshift, ast.Pow: operator.pow,
    ast.USub: operator.neg, ast.FloorDiv: operator.floordiv,
}  # fmt: skip


def _numbers(module: Module, node: ast.expr) -> list[float | int]:
    """Return the numbers that a constant range or tuple holds; LookupError if it is none."""
    match node:
        case ast.Call(func=ast.Name(id="range"), args=limits, keywords=[]):
            return list(range(*(int(_number(module, limit)) for limit in limits)))
        case ast.Tuple(elts=parts):
            return [_number(module, part) for part in parts]
    raise LookupError(ast.unparse(node))


def _number(module: Module, node: ast.expr) -> float | int:
    """Return the number that a constant expression is; LookupError if it is none."""
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return value
        case ast.Name(id=name):
            found = module.resolve(name)
            if isinstance(found, int | float):
                return found
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_number(module, operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_number(module, left), _number(module, right))
        case ast.Attribute(value=ast.Name(id="math"), attr=name):
            return getattr(math, name)
    raise LookupError(ast.unparse(node))
