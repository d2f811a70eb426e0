"""Imports Continuum with its telemetry compiled out, to measure what it costs that it is there.

Whatever stands under a question whether somebody listens (`heard`) or traces (`tracing`) is removed together with the
question, and so is every call of an emitter that stands by itself. What is left of the modules is what they would be if
there were no telemetry; `removed` counts what is not.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar

QUESTIONS = {"heard", "tracing"}
TELLERS = {"emit", "_emit", "tell", "enqueued"}
NOTED = {"queued_at"}  # attributes that are there for events alone
WITH_TELEMETRY = ("continuum.telemetry", "continuum.otel", "continuum.runtime.tracing", "continuum.runtime.telling")

removed = 0
S = TypeVar("S", ast.FunctionDef, ast.AsyncFunctionDef, ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.Try)


def compile_out() -> None:
    """Compile telemetry out of every module of Continuum that is imported from now on."""
    if "continuum" in sys.modules:
        raise RuntimeError("too late: continuum has been imported with its telemetry")
    sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith("continuum.") or fullname.startswith(WITH_TELEMETRY):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # as it is called
        """Compile the source without telemetry; what is cached has it."""
        source = Path(self.path).read_text(encoding="utf-8")
        tree = ast.fix_missing_locations(_Without().visit(ast.parse(source)))
        return compile(tree, self.path, "exec", dont_inherit=True)


class _Without(ast.NodeTransformer):
    """Removes telemetry from a module."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        if _asks(node.test):
            _count()
            return [kept for one in node.orelse for kept in _listed(self.visit(one))]
        return self._whole(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        if _asks(node.test):
            _count()
            return self.visit(node.orelse)  # type: ignore[no-any-return]
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Call) and _name(node.value.func) in TELLERS:
            _count()
            return None
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        if any(isinstance(target, ast.Attribute) and target.attr in NOTED for target in node.targets):
            _count()
            return None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if isinstance(node.target, ast.Attribute) and node.target.attr in NOTED:
            _count()
            return None
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        return self._whole(node)

    def _whole(self, node: ast.AST) -> ast.AST:
        """Visit what is inside; a body that became empty is `pass`."""
        super().generic_visit(node)
        if isinstance(body := getattr(node, "body", None), list) and not body and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node


def _asks(test: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id in QUESTIONS for node in ast.walk(test))


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _listed(node: ast.AST | list[ast.stmt] | None) -> list[ast.stmt]:
    return node if isinstance(node, list) else [] if node is None else [node]  # type: ignore[list-item]


def _count() -> None:
    global removed  # noqa: PLW0603  # of this process
    removed += 1
