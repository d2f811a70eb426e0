"""Local names: which a function binds, and what they stand for at this point of the reading."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from continuum.definitions.purity.things import Find, Thing

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Scope:
    """The names of one function; what it does not bind is looked up outside."""

    __slots__ = ("_outside", "bound", "globals", "nonlocals", "own", "parent")

    def __init__(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, outside: Find) -> None:
        self._outside = outside
        parent = getattr(outside, "__self__", None)
        self.parent = parent if isinstance(parent, Scope) else None
        inside = list(nodes_of(node.body if isinstance(node.body, list) else [node.body]))
        self.globals = {name for one in inside if isinstance(one, ast.Global) for name in one.names}
        self.nonlocals = {name for one in inside if isinstance(one, ast.Nonlocal) for name in one.names}
        arguments = {argument.arg for argument in arguments_of(node)}
        self.own = arguments.union(*map(_bound_by, inside)) - self.globals - self.nonlocals
        self.bound: dict[str, Thing | None] = {}

    def find(self, name: str) -> Thing | None:
        """Return what a name stands for here."""
        if name in self.bound:
            return self.bound[name]
        return None if name in self.own else self._outside(name)

    def is_shared(self, name: str) -> bool:
        """Tell whether binding a name changes something outside of what is being read."""
        if name in self.globals:
            return True
        scope = self
        while name in scope.nonlocals:
            if scope.parent is None:
                return True
            scope = scope.parent
        return False

    def merge(self, branches: Iterable[dict[str, Thing | None]]) -> None:
        """Go on from several branches: any of them may have been taken, so what is known on one is kept."""
        merged: dict[str, Thing | None] = {}
        for branch in branches:
            merged.update({name: thing for name, thing in branch.items() if thing is not None or name not in merged})
        self.bound = merged


def arguments_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[ast.arg]:
    """Return all parameters of a function."""
    args = node.args
    variadic = [one for one in (args.vararg, args.kwarg) if one is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *variadic]


def nodes_of(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield every node of a body, those of functions and classes inside left out."""
    for node in body:
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield from nodes_of(ast.iter_child_nodes(node))


def _bound_by(node: ast.AST) -> tuple[str, ...]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return (name,)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return (name,)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return (name,)
        case ast.MatchMapping(rest=str(name)):
            return (name,)
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return tuple(alias.asname or alias.name.partition(".")[0] for alias in names)
        case _:
            return ()
