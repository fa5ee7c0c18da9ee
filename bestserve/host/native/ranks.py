"""Dimensions of arrays, from how they are indexed: annotations do not say them.

`a[i, j]`, `n, k = a.shape` and `a.shape[1]` show two dimensions at least; so does passing `a[i]`
where one dimension is wanted, or calling it by a name that is indexed itself. What nothing shows
has one.
"""

from __future__ import annotations

import ast
from collections import defaultdict

from bestserve.host.native.program import Function, Program, Record
from bestserve.host.native.types import ANNOTATIONS


class Ranks:
    """Dimensions of parameters, of fields of records and of module-level arrays."""

    def __init__(self, program: Program) -> None:
        self.parameters: dict[tuple[str, str], int] = {}
        self.fields: defaultdict[tuple[str, str], int] = defaultdict(lambda: 1)
        self.tables: defaultdict[tuple[str, str], int] = defaultdict(lambda: 1)
        for _ in range(2):  # fields are seen by one function and used by another
            for function in program.functions():
                self._function(function)

    def _function(self, function: Function) -> None:
        ranks = _Body(function, self).ranks
        for name, annotation in function.parameters.items():
            if annotation in ANNOTATIONS:
                self.parameters[function.name, name] = max(ranks[name], 1)
        for name in function.names & function.module.arrays:
            key = (function.module.name, name)
            self.tables[key] = max(self.tables[key], ranks[name])


class _Body:
    """What one function shows of its names."""

    def __init__(self, function: Function, known: Ranks) -> None:
        self.function, self.known = function, known
        self.ranks: defaultdict[str, int] = defaultdict(int)
        self.unpacked: dict[str, tuple[str, str]] = {}
        for _ in range(3):  # names of rows, of rows of rows
            for node in ast.walk(function.node):
                self._see(node)
        for name, key in self.unpacked.items():
            known.fields[key] = max(known.fields[key], self.ranks[name])

    def _at_least(self, node: ast.expr, rank: int) -> None:
        """Note that an expression has that many dimensions."""
        if isinstance(node, ast.Name):
            self.ranks[node.id] = max(self.ranks[node.id], rank)
        elif isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
            index = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            dropped = sum(not isinstance(i, ast.Slice) for i in index)
            self._at_least(node.value, rank + dropped)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            record = self._record(node.value.id)
            if record is not None and node.attr in record.fields:
                key = (record.name, node.attr)
                self.known.fields[key] = max(self.known.fields[key], rank)

    def _see(self, node: ast.AST) -> None:
        match node:
            case ast.Subscript(value=ast.Attribute(value=array, attr="shape"), slice=axis):
                if isinstance(axis, ast.Constant) and isinstance(axis.value, int):
                    self._at_least(array, axis.value + 1)
            case ast.Subscript(
                value=ast.Name() | ast.Attribute() as array, slice=ast.Tuple(elts=index)
            ):
                self._at_least(array, len(index))
            case ast.Subscript(value=ast.Name() | ast.Attribute() as array):
                self._at_least(array, 1)
            case ast.Assign(
                targets=[ast.Tuple(elts=names)], value=ast.Attribute(value=array, attr="shape")
            ):
                self._at_least(array, len(names))
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                for name, value in zip(names, values, strict=True):
                    self._assigned(name, value)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Name(id=source)):
                self._unpacked(names, source)
            case ast.Assign(targets=[name], value=value):
                self._assigned(name, value)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                self._passed(name, arguments)

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        """A row that is indexed itself shows one more dimension of what it is a row of."""
        if isinstance(target, ast.Name) and self.ranks[target.id]:
            self._at_least(value, self.ranks[target.id])
        if isinstance(value, ast.Name) and isinstance(target, ast.Name):
            self._at_least(target, self.ranks[value.id])

    def _unpacked(self, names: list[ast.expr], source: str) -> None:
        record = self._record(source)
        if record is not None:
            for name, field in zip(names, record.fields, strict=True):
                key = (record.name, field)
                self.unpacked[ast.unparse(name)] = key
                self._at_least(name, self.known.fields[key])

    def _record(self, name: str) -> Record | None:
        """Return the record that a parameter is, if it is one."""
        found = self.function.module.resolve(self.function.parameters.get(name, ""))
        return found if isinstance(found, Record) else None

    def _passed(self, name: str, arguments: list[ast.expr]) -> None:
        callee = self.function.callees.get(name)
        if callee is not None:
            for argument, parameter in zip(arguments, callee.parameters, strict=False):
                rank = self.known.parameters.get((callee.name, parameter))
                if rank is not None:
                    self._at_least(argument, rank)
