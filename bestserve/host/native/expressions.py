"""Expressions of compiled loops as C, each with its type."""

from __future__ import annotations

import ast
import math
from functools import reduce

from bestserve.host.native.program import Function
from bestserve.host.native.program import Record as Fields
from bestserve.host.native.ranks import Ranks
from bestserve.host.native.types import (
    ANNOTATIONS,
    ITEMS,
    Array,
    Record,
    Scalar,
    Type,
    joined,
)

FLOAT, INT, BOOL = Scalar.FLOAT, Scalar.INT, Scalar.BOOL

MATHS = {"exp", "log", "log1p", "expm1", "log2", "sqrt", "lgamma", "sin", "cos", "erf", "erfc"}
"""Functions of `math` that C has by the same name."""

COMPARISONS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
BITS = {ast.BitAnd: "&", ast.BitOr: "|", ast.LShift: "<<", ast.RShift: ">>", ast.BitXor: "^"}

TAKEN = MATHS | {
    "double", "float", "int", "long", "short", "char", "signed", "unsigned", "const", "static",
    "default", "switch", "case", "union", "struct", "register", "auto", "volatile", "inline",
    "bool", "pow", "ceil", "floor", "fabs", "free", "malloc", "main", "NAN", "INFINITY", "I",
}  # fmt: skip
"""Names that a variable cannot have in C."""

Code = tuple[Type, str]


def variable(name: str) -> str:
    """Return a variable's name in C."""
    return f"{name}_" if name in TAKEN else name


class Expressions:
    """Translates the expressions of one function; `types` : of its variables, as far as known."""

    def __init__(self, function: Function, ranks: Ranks, results: dict[str, Type | None]) -> None:
        self.function, self.ranks, self.results = function, ranks, results
        self.types: dict[str, Type] = {}
        for name, annotation in function.parameters.items():
            self.types[name] = self.annotated(name, annotation)

    def annotated(self, name: str, annotation: str) -> Type:
        """Return a parameter's type."""
        return of_annotation(
            self.function, annotation, self.ranks.parameters.get((self.function.name, name), 1)
        )

    def of(self, node: ast.expr) -> Code:
        """Return type and C of an expression; LookupError while a variable has no type yet."""
        match node:
            case ast.Constant(value=value):
                return constant(value)
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return BOOL, f"(!{self.of(operand)[1]})"
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                kind, code = self.of(operand)
                return (INT if kind is BOOL else kind), f"(-{code})"
            case ast.BinOp(left=left, op=op, right=right):
                return self.operation(node, self.of(left), op, self.of(right), right)
            case ast.BoolOp(op=op, values=values):
                sign = " && " if isinstance(op, ast.And) else " || "
                return BOOL, "(" + sign.join(self.of(v)[1] for v in values) + ")"
            case ast.Compare():
                return self._comparison(node)
            case ast.IfExp(test=test, body=body, orelse=other):
                (one, yes), (two, no) = self.of(body), self.of(other)
                return joined(one, two), f"({self.of(test)[1]} ? {yes} : {no})"
            case ast.Subscript(value=value, slice=index):
                return self._subscript(node, value, index)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call():
                return self._call(node)
        raise self.function.refused(node, "not in the subset of compiled loops")

    def number(self, node: ast.expr) -> str:
        """Return the C of an expression that must be a number."""
        kind, code = self.of(node)
        if not isinstance(kind, Scalar):
            raise self.function.refused(node, "must be a number here; write the loop out")
        return code

    def array(self, node: ast.expr) -> tuple[Array, str]:
        """Return type and C of an expression that must be an array."""
        kind, code = self.of(node)
        if not isinstance(kind, Array):
            raise self.function.refused(node, "must be an array here")
        return kind, code

    def _name(self, node: ast.expr, name: str) -> Code:
        if name in self.types:
            return self.types[name], variable(name)
        if name in self.function.module.arrays:
            rank = self.ranks.tables[self.function.module.name, name]
            return Array("f8", rank), table(self.function.module.name, name)
        value = self.function.module.resolve(name)
        if isinstance(value, bool | int | float):
            return constant(value)
        raise LookupError(name)

    def operation(
        self, node: ast.AST, one: Code, op: ast.operator, two: Code, right: ast.expr
    ) -> Code:
        """Return `one op two`; right : the second operand's source, whose value may be known."""
        (kind, a), (other, b) = one, two
        if not (isinstance(kind, Scalar) and isinstance(other, Scalar)):
            raise self.function.refused(node, "arithmetic of arrays; write the loop out")
        both = joined(joined(kind, other), INT)
        known = self._known(right)
        match op:
            case ast.Add() | ast.Sub() | ast.Mult():
                sign = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}[type(op)]
                return both, f"({a} {sign} {b})"
            case ast.Div() if known or not self.function.checked:
                return FLOAT, f"((double){a} / {b})"
            case ast.Div():
                return FLOAT, f"divide({a}, {b})"
            case ast.FloorDiv() | ast.Mod() if both is INT:
                name = "floor_div" if isinstance(op, ast.FloorDiv) else "floor_mod"
                return INT, f"{name}({a}, {b})"
            case ast.Pow() if isinstance(known, int) and 2 <= known <= 4 and both is not BOOL:
                return (FLOAT, f"power_{known}({a})")
            case ast.Pow():
                return FLOAT, f"pow({a}, {b})"
        if type(op) in BITS and both is INT:
            return INT, f"({a} {BITS[type(op)]} {b})"
        raise self.function.refused(node, "no such operation in compiled loops")

    def _known(self, node: ast.expr) -> float | int | None:
        """Return the value of a constant, None of anything else."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        if isinstance(node, ast.Name) and node.id not in self.types:
            value = self.function.module.resolve(node.id)
            return value if isinstance(value, int | float) else None
        if isinstance(node, ast.BinOp):
            left, right = self._known(node.left), self._known(node.right)
            if left and right and isinstance(node.op, ast.Mult | ast.Add | ast.Pow | ast.Div):
                return math.nan  # some number: positive constants give no zero
        return None

    def _comparison(self, node: ast.Compare) -> Code:
        terms = [self.number(term) for term in [node.left, *node.comparators]]
        signs = [COMPARISONS.get(type(op)) for op in node.ops]
        if None in signs:
            raise self.function.refused(node, "no such comparison in compiled loops")
        parts = [f"{a} {sign} {b}" for a, sign, b in zip(terms, signs, terms[1:], strict=False)]
        return BOOL, "(" + " && ".join(parts) + ")"

    def _subscript(self, node: ast.Subscript, value: ast.expr, index: ast.expr) -> Code:
        if isinstance(value, ast.Attribute) and value.attr == "shape":
            kind, code = self.array(value.value)
            return INT, f"{code}.n{ast.literal_eval(index)}"
        kind, code = self.array(value)
        at = index.elts if isinstance(index, ast.Tuple) else [index]
        if len(at) > kind.ndim:
            raise self.function.refused(node, "too many indices")
        if any(isinstance(i, ast.Slice) for i in at):
            return self._slice(node, kind, code, at)
        places = ", ".join(self._place(i, code, axis) for axis, i in enumerate(at))
        if len(at) == kind.ndim:
            if isinstance(value, ast.Call):  # its C may stand once only
                return ITEMS[kind.item], f"item_{kind.c}({code}, {places})"
            return ITEMS[kind.item], f"AT{kind.ndim}({code}, {places})"
        if len(at) == 1:
            row = Array(kind.item, kind.ndim - 1)
            return row, f"row_{kind.c}({code}, {places})"
        raise self.function.refused(node, "no such view in compiled loops")

    def _place(self, node: ast.expr, array: str, axis: int) -> str:
        """Return an index in C; those from the end are known when it is compiled."""
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(back))):
                return f"{array}.n{axis} - {back}"
        kind, code = self.of(node)
        if kind is FLOAT or not isinstance(kind, Scalar):
            raise self.function.refused(node, "must be an integer here")
        return code

    def _slice(self, node: ast.Subscript, kind: Array, code: str, at: list[ast.expr]) -> Code:
        """Return a contiguous part of the last axis."""
        *rows, last = at
        if not isinstance(last, ast.Slice) or last.step or len(at) != kind.ndim:
            raise self.function.refused(node, "no such view in compiled loops")
        for row in rows:
            if isinstance(row, ast.Slice):
                raise self.function.refused(node, "no such view in compiled loops")
            code = f"row_{kind.c}({code}, {self.number(row)})"
            kind = Array(kind.item, kind.ndim - 1)
        start = self.number(last.lower) if last.lower else "0"
        stop = self._place(last.upper, code, 0) if last.upper else "INT64_MAX"
        return kind, f"part_{kind.c}({code}, {start}, {stop})"

    def _attribute(self, node: ast.Attribute) -> Code:
        match ast.unparse(node):
            case "math.inf" | "np.inf":
                return FLOAT, "INFINITY"
            case "math.pi" | "np.pi":
                return FLOAT, repr(math.pi)
            case "math.nan" | "np.nan":
                return FLOAT, "NAN"
        if isinstance(node.value, ast.Name) and node.value.id in self.function.parameters:
            name = node.value.id
            fields = self.function.module.resolve(self.function.parameters[name])
            if isinstance(fields, Fields) and node.attr in fields.fields:
                types = field_types(self.function, fields, self.ranks)
                return types[node.attr], f"{variable(name)}->{variable(node.attr)}"
        if node.attr == "size":
            kind, code = self.array(node.value)
            return INT, "(" + " * ".join(f"{code}.n{axis}" for axis in range(kind.ndim)) + ")"
        raise self.function.refused(node, "not in the subset of compiled loops")

    def _call(self, node: ast.Call) -> Code:
        name = ast.unparse(node.func)
        callee = self.function.callees.get(name)
        if callee is not None:
            return self._called(callee, node)
        numbers = [self.of(a) for a in node.args] if not name.startswith("np.") else []
        codes = ", ".join(code for _, code in numbers)
        kind: Type
        match name.split("."):
            case ["math", "ceil" | "floor" as what]:
                return INT, f"to_int({what}({codes}))"
            case ["math", what] if what in MATHS:
                return FLOAT, f"{what}({codes})"
            case ["min" | "max" as what]:
                kind = INT
                for other, _ in numbers:
                    kind = joined(kind, other)
                suffix = "f" if kind is FLOAT else "i"
                return kind, reduce(
                    lambda one, two: f"{what}_{suffix}({one}, {two})", [c for _, c in numbers]
                )
            case ["abs"]:
                kind = numbers[0][0]
                return kind, f"{'fabs' if kind is FLOAT else 'llabs'}({codes})"
            case ["int"]:
                return INT, f"to_int({codes})" if numbers[0][0] is FLOAT else f"((int64_t){codes})"
            case ["float"]:
                return FLOAT, f"((double){codes})"
            case ["bool"]:
                return BOOL, f"((bool){codes})"
            case ["len"]:
                return INT, f"{codes}.n0"
            case ["np", "zeros" | "empty" | "ones" as how]:
                return self._new(node, how)
            case ["np", "searchsorted"] if len(node.args) == 2:
                _, array = self.array(node.args[0])
                return INT, f"search_sorted({array}, {self.number(node.args[1])})"
        if isinstance(node.func, ast.Attribute) and name.split(".")[0] not in ("np", "math"):
            return self._method(node, node.func)
        raise self.function.refused(node, "not in the subset of compiled loops")

    def _called(self, callee: Function, node: ast.Call) -> Code:
        if len(node.args) != len(callee.parameters) or node.keywords:
            raise self.function.refused(node, "compiled loops call each other by position")
        codes = []
        for argument, (name, annotation) in zip(node.args, callee.parameters.items(), strict=True):
            kind, code = self.of(argument)
            wanted = of_annotation(
                callee, annotation, self.ranks.parameters.get((callee.name, name), 1)
            )
            if kind != wanted and not (isinstance(kind, Scalar) and isinstance(wanted, Scalar)):
                raise self.function.refused(argument, f"{name} is to be {wanted}, is {kind}")
            codes.append(code)
        result = self.results[callee.name]
        return result or INT, f"{callee.c}({', '.join(codes)})"

    def _new(self, node: ast.Call, how: str) -> Code:
        items = [k.value for k in node.keywords if k.arg == "dtype"] + node.args[1:]
        item = {"np.int64": "i8", "np.float64": "f8"}[ast.unparse(items[0])] if items else "f8"
        shape = node.args[0]
        if isinstance(shape, ast.Attribute) and shape.attr == "shape":
            like, code = self.array(shape.value)
            sizes = [f"{code}.n{axis}" for axis in range(like.ndim)]
        else:
            parts = shape.elts if isinstance(shape, ast.Tuple) else [shape]
            sizes = [self.number(part) for part in parts]
        kind = Array(item, len(sizes))
        return kind, f"{how}_{kind.c}({', '.join(sizes)})"

    def _method(self, node: ast.Call, method: ast.Attribute) -> Code:
        kind, code = self.array(method.value)
        match method.attr, node.args:
            case "sum", [] if kind.ndim == 1:
                return ITEMS[kind.item], f"sum_{kind.c}({code})"
            case "copy", []:
                return kind, f"copy_{kind.c}({code})"
            case "reshape", [ast.UnaryOp(operand=ast.Constant(value=1))]:
                return Array(kind.item, 1), f"flat_{kind.c}({code})"
        raise self.function.refused(node, "not in the subset of compiled loops")


def of_annotation(function: Function, annotation: str, rank: int) -> Type:
    """Return the type that an annotation means."""
    if annotation in ANNOTATIONS:
        return Array(ANNOTATIONS[annotation], rank)
    scalars = {"float": FLOAT, "int": INT, "bool": BOOL}
    if annotation in scalars:
        return scalars[annotation]
    record = function.module.resolve(annotation)
    if record is not None and hasattr(record, "fields"):
        return Record(annotation)
    raise function.refused(function.node, f"what type is {annotation}")


def field_types(function: Function, record: Fields, ranks: Ranks) -> dict[str, Scalar | Array]:
    """Return the types of a record's fields."""
    found: dict[str, Scalar | Array] = {}
    for name, annotation in record.fields.items():
        kind = of_annotation(function, annotation, ranks.fields[record.name, name])
        assert isinstance(kind, Scalar | Array)
        found[name] = kind
    return found


def constant(value: object) -> Code:
    """Return a constant in C."""
    if isinstance(value, bool):
        return BOOL, str(int(value))
    if isinstance(value, int):
        return INT, f"INT64_C({value})" if abs(value) >= 1 << 31 else str(value)
    if isinstance(value, float):
        return FLOAT, "INFINITY" if value == math.inf else repr(value)
    raise LookupError(repr(value))


def table(module: str, name: str) -> str:
    """Return the C name of a module-level array."""
    return f"table_{module.removeprefix('bestserve.').replace('.', '_')}_{name}"
