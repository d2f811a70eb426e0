"""Finds a function's place in its module's source, and what that module will define further down."""

from __future__ import annotations

import ast
import linecache
import types
from dataclasses import dataclass
from functools import lru_cache

from continuum.definitions.purity.resolving import globals_of, imported, resolved
from continuum.definitions.purity.things import Find, Inner, Thing

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """A function that was found in its file."""

    file: str
    node: FunctionNode
    find: Find  # looks up names that it does not bind itself
    package: str


def source_of(function: types.FunctionType) -> Source | None:
    """Return a function's source, or None if there is none."""
    code = function.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, function.__globals__)
    tree = _parsed("".join(lines)) if lines else None
    if tree is None:
        return None
    node = _function_at(tree, code.co_name, code.co_firstlineno)
    if node is None:
        return None
    package = str(function.__globals__.get("__package__") or "")
    return Source(code.co_filename, node, _with_what_follows(globals_of(function), tree, package), package)


@lru_cache(maxsize=16)  # definitions come one module after the other
def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _function_at(tree: ast.Module, name: str, line: int) -> FunctionNode | None:
    """Return the function whose first line, decorators included, is this one."""
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode) and node.name == name:
            first = node.decorator_list[0] if node.decorator_list else node
            if line in (first.lineno, node.lineno):
                return node
    return None


def _with_what_follows(find: Find, tree: ast.Module, package: str) -> Find:
    """Return a lookup that also knows what the module has not defined yet when the decorator runs."""
    asked: set[str] = set()  # names whose definition is being looked up: they may lead in a circle

    def look(name: str) -> Thing | None:
        found = find(name)
        if found is not None or name in asked:
            return found
        asked.add(name)
        try:
            return _defined(name, tree, look, package)
        finally:
            asked.discard(name)

    return look


def _defined(name: str, tree: ast.Module, look: Find, package: str) -> Thing | None:
    for node in tree.body:
        match node:
            case ast.Import() | ast.ImportFrom():
                bound = imported(node, package)
                if name in bound:
                    return bound[name]
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name == name:
                return Inner(node, look)
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                return resolved(value, look)
            case _:
                continue
    return None
