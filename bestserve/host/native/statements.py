"""Statements and whole functions of compiled loops as C."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from bestserve.host.native.expressions import FLOAT, INT, Code, Expressions, field_types, variable
from bestserve.host.native.program import Function, Record
from bestserve.host.native.ranks import Ranks
from bestserve.host.native.types import Scalar, Tuple, Type, joined


class Body(Expressions):
    """Translates one function."""

    def __init__(self, function: Function, ranks: Ranks, results: dict[str, Type | None]) -> None:
        super().__init__(function, ranks, results)
        self.lines: list[str] = []
        self.numbered = 0
        self.result: Type | None = None
        while self._infer():
            pass
        self._block(function.node.body)
        self.allocates = any(
            word in line
            for line in self.lines
            for word in ("zeros_", "empty_", "ones_", "copy_", "flat_")
        )

    @property
    def local_variables(self) -> dict[str, Type]:
        """Variables that are not parameters."""
        return {n: t for n, t in self.types.items() if n not in self.function.parameters}

    # types

    def _infer(self) -> bool:
        """Learn types of variables from assignments; tell whether something was learnt."""
        before = dict(self.types), self.result
        for node in ast.walk(self.function.node):
            try:
                self._learn(node)
            except LookupError:
                continue
        return before != (self.types, self.result)

    def _learn(self, node: ast.AST) -> None:
        match node:
            case ast.For(target=ast.Name(id=name)):
                self._has(node, name, INT)
            case ast.Assign(targets=[target], value=value):
                for place, kind in self._assigned(target, value):
                    self._has(node, place, kind)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                changed = self.operation(node, self.of(target), op, self.of(value), value)
                self._has(node, name, changed[0])
            case ast.Return(value=ast.Tuple(elts=parts)):
                kinds = [self.of(part)[0] for part in parts]
                stated = self._stated(len(kinds))
                self.result = Tuple(
                    tuple(s or k for s, k in zip(stated, kinds, strict=True)),  # type: ignore[misc]
                    f"res_{self.function.c}",
                )
            case ast.Return(value=ast.expr() as value):
                self.result = self._stated(1)[0] or self.of(value)[0]

    def _stated(self, count: int) -> list[Type | None]:
        """Return the numbers among the results, as annotated; None where it is an array."""
        node = self.function.node.returns
        parts: list[ast.expr] = [node] if node is not None else []
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "tuple":
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        scalars = {"float": FLOAT, "int": INT, "bool": Scalar.BOOL}
        stated: list[Type | None] = [scalars.get(ast.unparse(part)) for part in parts]
        if len(stated) != count:
            raise self.function.refused(self.function.node.returns or self.function.node, "results")
        return stated

    def _assigned(self, target: ast.expr, value: ast.expr) -> Iterator[tuple[str, Type]]:
        """Yield variables that an assignment defines, and what they become."""
        match target, value:
            case ast.Name(id=name), _:
                yield name, self.of(value)[0]
            case ast.Tuple(elts=names), ast.Tuple(elts=values):
                for one, part in zip(names, values, strict=True):
                    yield from self._assigned(one, part)
            case ast.Tuple(elts=names), _:
                for one, (kind, _) in zip(names, self._parts(value, "_"), strict=True):
                    if isinstance(one, ast.Name) and one.id != "_":
                        yield one.id, kind

    def _has(self, node: ast.AST, name: str, kind: Type) -> None:
        try:
            self.types[name] = joined(self.types.get(name, kind), kind)
        except TypeError as error:
            raise self.function.refused(node, f"{name} {error}") from None

    def _parts(self, value: ast.expr, name: str) -> list[Code]:
        """Return the parts of a value with several, which C holds as `name`."""
        match value:
            case ast.Attribute(value=array, attr="shape"):
                shaped, code = self.array(array)
                return [(INT, f"{code}.n{axis}") for axis in range(shaped.ndim)]
            case ast.Call(func=ast.Name(id="divmod"), args=[one, two]):
                a, b = self.number(one), self.number(two)
                return [(INT, f"floor_div({a}, {b})"), (INT, f"floor_mod({a}, {b})")]
            case ast.Name(id=record) if record in self.function.parameters:
                fields = self.function.module.resolve(self.function.parameters[record])
                if isinstance(fields, Record):
                    types = field_types(self.function, fields, self.ranks)
                    return [
                        (kind, f"{variable(record)}->{variable(f)}") for f, kind in types.items()
                    ]
        kind, _ = self.of(value)
        if not isinstance(kind, Tuple):
            raise self.function.refused(value, "has no parts")
        return [(part, f"{name}.v{i}") for i, part in enumerate(kind.parts)]

    # statements

    def _block(self, body: list[ast.stmt]) -> None:
        for node in body:
            try:
                self._statement(node)
            except LookupError as error:
                raise self.function.refused(node, f"what is {error}") from None

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Expr(value=value):
                self._line(f"{self.of(value)[1]};")
            case ast.Assign(targets=[target], value=value):
                self._assignment(target, value)
            case ast.AugAssign(target=target, op=op, value=value):
                place = self.of(target)
                if isinstance(op, ast.Add | ast.Sub | ast.Mult):
                    sign = {ast.Add: "+=", ast.Sub: "-=", ast.Mult: "*="}[type(op)]
                    self._line(f"{place[1]} {sign} {self.number(value)};")
                else:
                    _, code = self.operation(node, place, op, self.of(value), value)
                    self._line(f"{place[1]} = {code};")
            case ast.If(test=test, body=body, orelse=other):
                self._line(f"if ({self.number(test)}) {{")
                self._block(body)
                if other:
                    self._line("} else {")
                    self._block(other)
                self._line("}")
            case ast.While(test=test, body=body, orelse=[]):
                self._line(f"while ({self.number(test)}) {{")
                self._block(body)
                self._line("}")
            case ast.For(target=ast.Name(id=name), iter=ast.Call() as over, body=body, orelse=[]):
                self._for(node, name, over, body)
            case ast.Return(value=value):
                self._return(value)
            case ast.Break():
                self._line("break;")
            case ast.Continue():
                self._line("continue;")
            case ast.Pass():
                pass
            case _:
                raise self.function.refused(node, "not in the subset of compiled loops")

    def _line(self, text: str) -> None:
        self.lines.append(text)

    def _fresh(self) -> str:
        self.numbered += 1
        return f"t{self.numbered}_"

    def _assignment(self, target: ast.expr, value: ast.expr) -> None:
        if not isinstance(target, ast.Tuple):
            kind, code = self.of(value)
            there, written = self.of(target)
            numbers = isinstance(kind, Scalar) and isinstance(there, Scalar)
            if isinstance(target, ast.Subscript) and not numbers:
                raise self.function.refused(target, "assigns arrays; write the loop out")
            self._line(f"{written} = {code};")
            return
        if isinstance(value, ast.Tuple):
            parts = [self.of(part) for part in value.elts]
        else:
            whole = self._fresh()
            parts = self._parts(value, whole)
            if f"{whole}.v0" in (code for _, code in parts):
                kind, code = self.of(value)
                self._line(f"{kind.c} {whole} = {code};")
        kept: list[tuple[ast.expr, str]] = []
        for place, (kind, code) in zip(target.elts, parts, strict=True):
            if isinstance(place, ast.Name) and place.id == "_":
                continue
            fresh = self._fresh()
            self._line(f"{kind.c} {fresh} = {code};")
            kept.append((place, fresh))
        for place, fresh in kept:
            self._line(f"{self.of(place)[1]} = {fresh};")

    def _for(self, node: ast.For, name: str, over: ast.Call, body: list[ast.stmt]) -> None:
        if ast.unparse(over.func) != "range":
            raise self.function.refused(over, "loops run over ranges only")
        limits = [self.number(a) for a in over.args]
        start, stop = (limits[0], limits[1]) if len(limits) > 1 else ("0", limits[0])
        step = ast.literal_eval(over.args[2]) if len(limits) > 2 else 1
        at, end = self._fresh(), self._fresh()
        sign = "<" if step > 0 else ">"
        self._line(f"const int64_t {end} = {stop};")
        self._line(f"for (int64_t {at} = {start}; {at} {sign} {end}; {at} += {step}) {{")
        self._line(f"{variable(name)} = {at};")
        self._block(body)
        self._line("}")

    def _return(self, value: ast.expr | None) -> None:
        match value:
            case None:
                self._line("return;")
            case ast.Tuple(elts=parts):
                codes = ", ".join(self.of(part)[1] for part in parts)
                self._line(f"return (res_{self.function.c}){{{codes}}};")
            case _:
                self._line(f"return {self.of(value)[1]};")
