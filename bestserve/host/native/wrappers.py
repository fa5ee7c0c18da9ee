"""What Python calls: arguments checked and unpacked, results copied to NumPy arrays."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from bestserve.host.native.expressions import field_types, table, variable
from bestserve.host.native.program import Function, Program
from bestserve.host.native.program import Record as Fields
from bestserve.host.native.ranks import Ranks
from bestserve.host.native.statements import Body
from bestserve.host.native.types import Array, Record, Tuple, Type

HERE = Path(__file__).parent


def translated(program: Program, stamp: str) -> str:
    """Return one C file with all compiled loops of a package; stamp : tells its sources' state."""
    ranks = Ranks(program)
    results: dict[str, Type | None] = {}
    bodies: list[Body] = []
    for function in program.functions():
        body = Body(function, ranks, results)
        results[function.name] = body.result
        bodies.append(body)
    parts = ['#include "abi.h"', _file("prelude.c"), _file("glue.c")]
    parts += _records(bodies, ranks)
    parts += [f"static f8_{rank} {table(*key)};" for key, rank in sorted(ranks.tables.items())]
    parts += [_function(body) for body in bodies]
    parts += [_wrapper(body, written) for body, written in _with_writes(bodies)]
    parts.append(_module(bodies, ranks, program, stamp))
    return "\n\n".join(parts)


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _records(bodies: list[Body], ranks: Ranks) -> Iterator[str]:
    """Yield definitions of the records that functions take and of the results they return."""
    seen: set[str] = set()
    for body in bodies:
        for name, kind in body.types.items():
            if isinstance(kind, Record) and kind.c not in seen:
                seen.add(kind.c)
                annotation = body.function.parameters[name]
                fields = body.function.module.resolve(annotation)
                assert isinstance(fields, Fields)
                types = field_types(body.function, fields, ranks)
                inside = " ".join(f"{t.c} {variable(f)};" for f, t in types.items())
                yield f"typedef struct {{ {inside} }} {kind.c};"
    for body in bodies:
        if isinstance(body.result, Tuple):
            inside = " ".join(f"{t.c} v{i};" for i, t in enumerate(body.result.parts))
            yield f"typedef struct {{ {inside} }} {body.result.c};"


def _function(body: Body) -> str:
    """Return a function in C; one that returns no array frees what it has allocated."""
    function, result = body.function, body.result
    kinds = result.parts if isinstance(result, Tuple) else (result,)
    frees = body.allocates and not any(isinstance(k, Array) for k in kinds)
    parameters = [_parameter(body.types[n], variable(n)) for n in function.parameters]
    returns = result.c if result is not None else "void"
    name = f"{function.c}_body" if frees else function.c
    lines = [f"/* {function.module.path.name}:{function.node.lineno} */"]
    inlined = "inline __attribute__((always_inline)) " if function.inlined else ""
    lines.append(f"static {inlined}{returns} {name}({', '.join(parameters)}) {{")
    for local, kind in sorted(body.local_variables.items()):
        lines.append(f"{kind.c} {variable(local)} = {{0}};")
    lines += [*body.lines, "}"]
    if frees:
        given = ", ".join(variable(n) for n in function.parameters)
        kept = f"{returns} result = " if result is not None else ""
        back = " return result;" if result is not None else ""
        lines.append(
            f"static {returns} {function.c}({', '.join(parameters)}) {{ block *last = newest; "
            f"{kept}{name}({given}); release(last);{back} }}"
        )
    return "\n".join(lines)


def _parameter(kind: Type, name: str) -> str:
    """Return how a function takes a parameter: records, which are large, by their address."""
    return f"const {kind.c} *restrict {name}" if isinstance(kind, Record) else f"{kind.c} {name}"


def _with_writes(bodies: list[Body]) -> Iterator[tuple[Body, set[str]]]:
    """Yield functions with the parameters whose elements they, or their callees, change."""
    known: dict[str, list[bool]] = {}
    for body in bodies:
        written = _written(body.function, known)
        known[body.function.name] = [name in written for name in body.function.parameters]
        yield body, written


def _written(function: Function, known: dict[str, list[bool]]) -> set[str]:
    found: set[str] = set()
    rows: dict[str, str] = {}
    for node in ast.walk(function.node):
        match node:
            case ast.Assign(targets=[target], value=value):
                pairs = [(target, value)]
                if isinstance(target, ast.Tuple):
                    values = value.elts if isinstance(value, ast.Tuple) else [value] * 99
                    pairs = list(zip(target.elts, values, strict=False))
                for one, source in pairs:
                    if isinstance(one, ast.Subscript):
                        found.add(_root(one))
                    elif isinstance(one, ast.Name):
                        rows[one.id] = _root(source)
            case ast.AugAssign(target=ast.Subscript() as target):
                found.add(_root(target))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                callee = function.callees.get(name)
                if callee is not None:
                    flags = known[callee.name]
                    found |= {_root(a) for a, flag in zip(arguments, flags, strict=True) if flag}
    # what a row belongs to changes with it; fields of records with what they are unpacked to
    for _ in range(3):
        found |= {rows[name] for name in found if name in rows}
    return found


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _wrapper(body: Body, written: set[str]) -> str:
    function, result = body.function, body.result
    count = len(function.parameters)
    lines = [
        f"static PyObject *py_{function.c}("
        "PyObject *self_, PyObject *const *args_, Py_ssize_t n_) {",
        "(void)self_;",
        "frame f_; f_.held = 0;",
        f'if (n_ != {count}) return PyErr_Format(PyExc_TypeError, "%s takes {count} arguments, '
        f'not %zd", "{function.node.name}", n_);',
    ]
    takes: list[str] = []
    for i, name in enumerate(function.parameters):
        kind = body.types[name] if name not in body.local_variables else None
        assert kind is not None
        given, place = f"args_[{i}]", variable(name)
        lines.append(f"{kind.c} {place};")
        flag = str(name in written).lower()
        if isinstance(kind, Record):
            fields = function.module.resolve(function.parameters[name])
            assert isinstance(fields, Fields)
            types = field_types(function, fields, body.ranks)
            takes.append(f'has({given}, {len(types)}, "{kind.name}")')
            takes += [
                _take(part, f"PyTuple_GetItem({given}, {j})", f"{place}.{variable(field)}", flag)
                for j, (field, part) in enumerate(types.items())
            ]
        else:
            takes.append(_take(kind, given, place, flag))
    lines += [f"if (!{take}) return leave(&f_, NULL);" for take in takes]
    lines += [
        "int why_ = setjmp(escape);",
        f'if (why_ != NO_ERROR) return leave(&f_, failed(why_, "{function.name}"));',
    ]
    given_all = (
        f"&{variable(n)}" if isinstance(body.types[n], Record) else variable(n)
        for n in function.parameters
    )
    call = f"{function.c}({', '.join(given_all)})"
    if result is None:
        lines += [f"{call};", "Py_IncRef(&_Py_NoneStruct);", "return leave(&f_, &_Py_NoneStruct);"]
    elif isinstance(result, Tuple):
        lines += [f"{result.c} r_ = {call};", f"PyObject *out_ = PyTuple_New({len(result.parts)});"]
        for i, part in enumerate(result.parts):
            lines.append(f"PyTuple_SetItem(out_, {i}, give_{part.c}(r_.v{i}));")
        lines += [
            "if (PyErr_Occurred()) { Py_DecRef(out_); out_ = NULL; }",
            "return leave(&f_, out_);",
        ]
    else:
        lines += [f"return leave(&f_, give_{result.c}({call}));"]
    return "\n".join([*lines, "}"])


def _take(kind: Type, given: str, place: str, written: str) -> str:
    if isinstance(kind, Array):
        return f"take_{kind.c}(&f_, {given}, {written}, &{place})"
    return f"take_{kind.c}({given}, &{place})"


def _module(bodies: list[Body], ranks: Ranks, program: Program, stamp: str) -> str:
    """Return the module: its functions by their full names, tables to be bound, and its stamp."""
    lines = ["static PyMethodDef methods[] = {"]
    for body in bodies:
        function = body.function
        takes = ", ".join(function.parameters)
        told = f"{function.node.name}({takes})\n--\n\n{ast.get_docstring(function.node) or ''}"
        lines.append(
            f'{{"{function.node.name}", (void *)py_{function.c}, METH_FASTCALL, {_quoted(told)}}},'
        )
    lines += ["{NULL, NULL, 0, NULL}};"]
    names = ", ".join(f'"{body.function.module.name}"' for body in bodies)
    lines += [
        f"static const char *const modules[] = {{{names}}};",
        "static PyObject *bind(PyObject *self, PyObject *const *args, Py_ssize_t n) {",
        "(void)self; (void)n;",
        "static frame f; f.held = 0;  /* for good: the loops read these arrays */",
        "const char *name = PyUnicode_AsUTF8AndSize(args[0], NULL);",
        "if (name == NULL) return NULL;",
    ]
    for (module, array), rank in sorted(ranks.tables.items()):
        lines.append(
            f'if (strcmp(name, "{module}.{array}") == 0 && '
            f"!take_f8_{rank}(&f, args[1], false, &{table(module, array)})) return NULL;"
        )
    lines += [
        "Py_IncRef(&_Py_NoneStruct);",
        "return &_Py_NoneStruct;",
        "}",
        'static PyMethodDef binder = {"bind", (void *)bind, METH_FASTCALL, NULL};',
        f"static const char stamp[] = {_quoted(stamp)};",
    ]
    return "\n".join([*lines, _file("module.c")])


def _quoted(text: str) -> str:
    """Return a C string; bytes beyond ASCII in octal, so that no digit after them belongs to it."""
    quoted = "".join(
        json.dumps(chr(b))[1:-1] if 32 <= b < 127 else f"\\{b:03o}" for b in text.encode()
    )
    return f'"{quoted}"'
