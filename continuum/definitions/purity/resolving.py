"""Follows names: through locals, enclosing functions, module globals, imports and aliases, to what they stand for."""

from __future__ import annotations

import ast
import asyncio
import builtins
import functools
import importlib
import inspect
import sys
import types
from collections.abc import Mapping
from typing import Any

from continuum.definitions.purity.naming import is_a, loaded, name_of_module
from continuum.definitions.purity.things import Find, Inner, Live, Made, Member, Named, SetOf, Thing, Waited

SETS = (set, frozenset)
SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
DISPLAYS: Mapping[type[ast.expr], type] = {
    ast.List: list,
    ast.ListComp: list,
    ast.Tuple: tuple,
    ast.Dict: dict,
    ast.DictComp: dict,
    ast.JoinedStr: str,
}
# Numbers are their own hashes: a set of them has the same order in every process.
ORDERLY = (int, float, complex, bool)


def resolved(node: ast.AST | None, find: Find) -> Thing | None:
    """Return what an expression stands for."""
    match node:
        case ast.Name(id=name):
            return find(name)
        case ast.Attribute(value=value, attr=name):
            return attribute(resolved(value, find), name)
        case ast.Await(value=value) | ast.NamedExpr(value=value):
            return resolved(value, find)
        case ast.Call():
            return _result(node, find)
        case ast.Set(elts=elements):
            return None if all(_is_orderly(element) for element in elements) else SetOf()
        case ast.SetComp():
            return SetOf()
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
            return _set_of_both(left, right, find)
        case ast.IfExp(body=body, orelse=orelse):
            return resolved(body, find) or resolved(orelse, find)
        case ast.BoolOp(values=values):
            things = (resolved(value, find) for value in values)
            return next((thing for thing in things if thing is not None), None)
        case ast.Subscript(value=value, slice=ast.Constant(value=0 | 1)):
            return SetOf(of_tasks=True) if type(resolved(value, find)) is Waited else None
        case ast.Constant(value=value):
            return Made(type(value))
        case ast.Lambda():
            return Inner(node, find)
        case _:
            kind = DISPLAYS.get(type(node))  # type: ignore[arg-type]
            return Made(kind) if kind is not None else None


def attribute(thing: Thing | None, name: str) -> Thing | None:
    """Return an attribute of a thing, without asking any object for it."""
    match thing:
        case Named(path):
            return Named(f"{path}.{name}")
        case Made(kind):
            return Member(kind, name)
        case Live(value, path) if is_a(value, types.ModuleType):
            spelled = f"{name_of_module(value)}.{name}"
            member = vars(value).get(name, sys.modules.get(spelled))
            return Live(member, spelled) if member is not None else Named(spelled)
        case Live(value) if is_a(value, type):
            return Member(value, name)
        case Live(value):
            held = inspect.getattr_static(value, name, None)
            is_own = held is not None and inspect.getattr_static(type(value), name, None) is not held
            return Live(held) if is_own else Member(type(value), name, thing)
        case _:
            return None


def imported(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, Thing | None]:
    """Return what an import statement binds."""
    if isinstance(node, ast.Import):
        return {
            alias.asname or alias.name.partition(".")[0]: _module(
                alias.name if alias.asname else alias.name.partition(".")[0]
            )
            for alias in node.names
        }
    base = node.module or ""
    if node.level:
        parents = package.split(".")
        base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
    return {
        alias.asname or alias.name: attribute(_module(base), alias.name) for alias in node.names if alias.name != "*"
    }


def annotated(annotation: ast.expr | None, find: Find) -> Thing | None:
    """Return what a variable with this annotation holds."""
    match annotation:
        case ast.Constant(value=str(text)):
            try:
                return annotated(ast.parse(text, mode="eval").body, find)
            except SyntaxError:
                return None
        case ast.Subscript(value=value, slice=element):
            kind = _class_of(resolved(value, find))
            if kind is not None and issubclass(kind, SETS):
                of = _class_of(resolved(element, find))
                return Made(kind) if of in ORDERLY else SetOf()
            return Made(kind) if kind is not None else None
        case None:
            return None
        case _:
            kind = _class_of(resolved(annotation, find))
            return None if kind is None else SetOf() if issubclass(kind, SETS) else Made(kind)


def _class_of(thing: Thing | None) -> type | None:
    value = thing.value if isinstance(thing, Live) else None
    if not is_a(value, type):
        value = getattr(value, "__origin__", None) if type(value).__module__ in ("typing", "types") else None
    return value if is_a(value, type) else None


def _module(path: str) -> Thing:
    return loaded(path) or Named(path)


def _set_of_both(left: ast.expr, right: ast.expr, find: Find) -> Thing | None:
    return SetOf() if any(isinstance(resolved(side, find), SetOf) or _is_view(side) for side in (left, right)) else None


def _is_view(node: ast.expr) -> bool:
    """Tell whether this is `….keys()`: of two of them, operators make a set."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("keys", "items")


def _is_orderly(element: ast.expr) -> bool:
    return isinstance(element, ast.Constant) and type(element.value) in ORDERLY


def _result(call: ast.Call, find: Find) -> Thing | None:
    """Return what a call gives."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in SET_METHODS:
        receiver = resolved(call.func.value, find)
        if isinstance(receiver, SetOf):
            return receiver
    match resolved(call.func, find):
        case Inner(ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns), inside):
            return annotated(returns, inside)
        case Member(kind, name):
            method = inspect.getattr_static(kind, name, None)
            return returned(method) if is_a(method, types.FunctionType) else None
        case Live(value):
            return _result_of(value, call, find)
        case _:
            return None


def _result_of(value: Any, call: ast.Call, find: Find) -> Thing | None:
    first = call.args[0] if call.args else None
    if value is getattr and len(call.args) > 1:
        return attribute(resolved(first, find), _text(call.args[1]))
    if value is importlib.import_module or value is builtins.__import__:
        return _module(_text(first)) if _text(first) else None
    if value is functools.partial:
        return resolved(first, find)
    if value is asyncio.wait:
        return Waited()
    if value is set or value is frozenset:
        return SetOf()
    if is_a(value, type):
        return Made(value)
    return returned(value) if is_a(value, types.FunctionType) else None


def returned(function: types.FunctionType) -> Thing | None:
    """Return what calling (and awaiting) a function gives, by its annotation."""
    try:
        annotation = function.__annotations__.get("return")
    except Exception:  # noqa: BLE001  # Python 3.14 evaluates it now, whatever it is
        return None
    if is_a(annotation, str):
        return annotated(ast.Constant(annotation), globals_of(function))
    kind = _class_of(Live(annotation))
    return None if kind is None else SetOf() if issubclass(kind, SETS) else Made(kind)


def globals_of(function: types.FunctionType) -> Find:
    """Return how a name is looked up where a function's module stands: closure, globals, builtins."""
    closure = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

    def find(name: str) -> Thing | None:
        if name in closure:
            try:
                return Live(closure[name].cell_contents)
            except ValueError:  # it is bound after the function was made
                return None
        if name in function.__globals__:
            return Live(function.__globals__[name])
        return Live(vars(builtins)[name], name) if name in vars(builtins) else None

    return find


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
