"""Reads one function, statement by statement, and tells what in it the table forbids.

Names are followed in the order of the code: a variable stands for what was assigned last, on whichever branch. Functions
and lambdas inside are read where they are used; what `side_effect` is given is not, for that is journaled. What stands
on the far side of `if in_workflow()` is not either.
"""

from __future__ import annotations

import ast
import functools
import inspect
import types
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from continuum.definitions.activity import Activity
from continuum.definitions.purity.judging import judged
from continuum.definitions.purity.naming import is_a, is_routine
from continuum.definitions.purity.orders import ignores_order, ordered_by, rule_of_order
from continuum.definitions.purity.resolving import annotated, imported, resolved
from continuum.definitions.purity.rules import BARE_ACTIVITY, EXCEPT_ALL, METHOD_NAMES, MODULE_STATE, NOT_AWAITED, Rule
from continuum.definitions.purity.scopes import Scope, arguments_of, nodes_of
from continuum.definitions.purity.sources import Source
from continuum.definitions.purity.states import changes, is_shared
from continuum.definitions.purity.things import Find, Inner, Live, Member, SetOf, Thing, Waited
from continuum.replay.context import in_workflow, side_effect

ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True, slots=True)
class Finding:
    """Something forbidden: where, by which name, by which rule."""

    file: str
    line: int
    name: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Use:
    """A function that the code calls or hands on: it may be read too."""

    function: types.FunctionType
    line: int


@dataclass(slots=True)
class Read:
    """What the reading of one function found."""

    findings: list[Finding] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)


def read(source: Source) -> Read:
    """Read a function."""
    reader = _Reader(source)
    reader.function(source.node, source.find)
    return reader.found


class _Reader:
    def __init__(self, source: Source) -> None:
        self.found = Read()
        self._file = source.file
        self._package = source.package
        self._entered: set[ast.AST] = set()
        self._scope: Scope | None = None
        self._find: Find = source.find

    def _finds(self, node: ast.AST, name: str, rule: Rule) -> None:
        finding = Finding(self._file, getattr(node, "lineno", 0), name, rule)
        if finding not in self.found.findings:
            self.found.findings.append(finding)

    # --- functions ----------------------------------------------------------------------------------------------------

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, outside: Find) -> None:
        """Read a function's defaults and body, once."""
        if node in self._entered:
            return
        self._entered.add(node)
        before = self._scope, self._find
        self._find = outside
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self._expression(default)
        self._scope = Scope(node, outside)
        self._find = self._scope.find
        for argument in arguments_of(node):
            self._scope.bound[argument.arg] = annotated(argument.annotation, outside)
        if isinstance(node, ast.Lambda):
            self._expression(node.body)
        else:
            self._block(node.body)
        self._scope, self._find = before

    def _use(self, thing: Thing | None, node: ast.AST) -> None:
        """Go on into a function of the same file, note one that stands elsewhere."""
        match thing:
            case Inner(inner, outside):
                decorators = () if isinstance(inner, ast.Lambda) else inner.decorator_list
                if not any(self._is_ours(decorator, outside) for decorator in decorators):
                    self.function(inner, outside)
            case Live(value) if is_a(value, type):
                for name in ("__new__", "__init__", "__post_init__"):
                    self._note(inspect.getattr_static(value, name, None), node)
            case Live(value):
                self._note(value, node)
            case Member(kind, name):
                self._note(inspect.getattr_static(kind, name, None), node)
            case _:
                pass

    def _is_ours(self, decorator: ast.expr, find: Find) -> bool:
        """Tell whether a function that is not made yet will be an activity or a workflow, or is checked by itself."""
        thing = resolved(decorator.func if isinstance(decorator, ast.Call) else decorator, find)
        return isinstance(thing, Live) and getattr(thing.value, "__module__", "").startswith("continuum.definitions")

    def _note(self, value: Any, node: ast.AST) -> None:
        """Note a function, and the one that it was made from by a decorator or a partial."""
        while is_routine(value):
            if is_a(value, types.FunctionType):
                self.found.uses.append(Use(value, getattr(node, "lineno", 0)))
            inner = (
                "func"
                if is_a(value, functools.partial)
                else "__func__"
                if hasattr(value, "__func__")
                else "__wrapped__"
            )
            value = getattr(value, inner, None)

    # --- statements ---------------------------------------------------------------------------------------------------

    def _block(self, body: Sequence[ast.stmt]) -> bool:
        """Read statements in order; True: what comes after is never reached in a workflow."""
        return any(self._statement(statement) for statement in body) or isinstance(body[-1] if body else None, ENDS)

    def _statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.If():
                return self._if(node)
            case ast.Assign(targets=targets, value=value):
                self._expression(value)
                for target in targets:
                    self._bind(target, resolved(value, self._find))
            case ast.AnnAssign(target=target, annotation=annotation, value=value):
                thing = annotated(annotation, self._find)
                if value is not None:
                    self._expression(value)
                    self._bind(target, thing or resolved(value, self._find))
            case ast.AugAssign(target=target, value=value):
                self._expression(value)
                self._bind(target, resolved(target, self._find))
            case ast.Delete(targets=targets):
                for target in targets:
                    self._bind(target, None)
            case ast.For(target=target, iter=iterable) | ast.AsyncFor(target=target, iter=iterable):
                self._iterate(iterable)
                self._bind(target, None)
                self._branches(node.body, [])
                self._block(node.orelse)
            case ast.While(test=test):
                self._expression(test)
                self._branches(node.body, [])
                self._block(node.orelse)
            case ast.With(items=items) | ast.AsyncWith(items=items):
                for item in items:
                    self._expression(item.context_expr)
                    if item.optional_vars is not None:
                        self._bind(item.optional_vars, resolved(item.context_expr, self._find))
                return self._block(node.body)
            case ast.Try() | ast.TryStar():
                self._try(node)
            case ast.Match(subject=subject):
                self._expression(subject)
                self._branches(*(case.body for case in node.cases), [])
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._set(node.name, Inner(node, self._find))
            case ast.ClassDef():
                self._set(node.name, None)
            case ast.Import() | ast.ImportFrom():
                for name, thing in imported(node, self._package).items():
                    self._set(name, thing)
            case ast.Expr(value=value):
                self._expression(value)
                if isinstance(value, ast.Call) and _makes_coroutine(resolved(value.func, self._find)):
                    self._finds(value, NOT_AWAITED.names[0], NOT_AWAITED)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._expression(child)
        return isinstance(node, ENDS)

    def _if(self, node: ast.If) -> bool:
        inside = self._asks_for_workflow(node.test)
        if inside is not None:
            return self._block(node.body if inside else node.orelse)
        self._expression(node.test)
        self._branches(node.body, node.orelse)
        return False

    def _asks_for_workflow(self, test: ast.expr) -> bool | None:
        """Return what `in_workflow()` says, as it always does here; None: something else is asked."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            answer = self._asks_for_workflow(test.operand)
            return None if answer is None else not answer
        callee = resolved(test.func, self._find) if isinstance(test, ast.Call) else None
        return True if isinstance(callee, Live) and callee.value is in_workflow else None

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        self._branches([*node.body, *node.orelse], *(handler.body for handler in node.handlers))
        self._block(node.finalbody)
        for handler in node.handlers:
            kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
            takes_all = any(kind is None or self._is_base(kind) for kind in kinds)
            if takes_all and not any(isinstance(inner, ast.Raise) for inner in nodes_of(handler.body)):
                self._finds(handler, EXCEPT_ALL.names[0], EXCEPT_ALL)

    def _is_base(self, node: ast.expr) -> bool:
        thing = resolved(node, self._find)
        return isinstance(thing, Live) and thing.value is BaseException

    def _branches(self, *bodies: Sequence[ast.stmt]) -> None:
        """Read bodies of which one is taken, each from where the code stands now."""
        assert self._scope is not None
        before = self._scope.bound
        after = []
        for body in bodies:
            self._scope.bound = dict(before)
            self._block(body)
            after.append(self._scope.bound)
        self._scope.merge(after)

    # --- names --------------------------------------------------------------------------------------------------------

    def _set(self, name: str, thing: Thing | None) -> None:
        if self._scope is not None:
            self._scope.bound[name] = thing

    def _bind(self, target: ast.expr, thing: Thing | None) -> None:
        match target:
            case ast.Name(id=name):
                if self._scope is not None and self._scope.is_shared(name):
                    self._finds(target, MODULE_STATE.names[0], MODULE_STATE)
                else:
                    self._set(name, thing)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                self._orderly(target, thing)
                for element in elements:
                    self._bind(element, SetOf(of_tasks=True) if isinstance(thing, Waited) else None)
            case ast.Starred(value=value):
                self._bind(value, None)
            case ast.Attribute(value=value) | ast.Subscript(value=value):
                if is_shared(target, self._find):
                    self._finds(target, MODULE_STATE.names[0], MODULE_STATE)
                self._expression(value)
                if isinstance(target, ast.Subscript):
                    self._expression(target.slice)
            case _:
                raise AssertionError(f"{target} is no target")  # pragma: no cover

    # --- expressions --------------------------------------------------------------------------------------------------

    def _expression(self, node: ast.expr) -> None:
        match node:
            case ast.Call():
                self._call(node)
            case ast.Attribute(value=value):
                if not self._judge(node, None):
                    self._expression(value)
            case ast.Name():
                self._judge(node, None)
            case ast.Lambda():
                self.function(node, self._find)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._comprehension(node, in_order=not isinstance(node, ast.SetComp))
            case ast.IfExp(test=test) if (inside := self._asks_for_workflow(test)) is not None:
                self._expression(node.body if inside else node.orelse)
            case ast.NamedExpr(target=target, value=value):
                self._expression(value)
                self._bind(target, resolved(value, self._find))
            case ast.Starred(value=value):
                self._orderly(node, resolved(value, self._find))
                self._expression(value)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._expression(child)

    def _call(self, node: ast.Call) -> None:
        callee = resolved(node.func, self._find)
        if isinstance(callee, Live) and callee.value is side_effect:
            return  # what it calls is journaled
        if not self._judge(node.func, node) and isinstance(node.func, ast.Attribute):
            self._expression(node.func.value)
        elif not isinstance(node.func, ast.Name | ast.Attribute):
            self._expression(node.func)
        for rule in ordered_by(node, callee, self._find):
            self._finds(node, rule.names[0], rule)
        if changes(node, self._find):
            self._finds(node, MODULE_STATE.names[0], MODULE_STATE)
        if isinstance(callee, Live) and callee.value is suppress and any(map(self._is_base, node.args)):
            self._finds(node, EXCEPT_ALL.names[0], EXCEPT_ALL)
        self._arguments(node, callee)

    def _arguments(self, node: ast.Call, callee: Thing | None) -> None:
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            if isinstance(argument, ast.GeneratorExp | ast.ListComp) and ignores_order(callee):
                self._comprehension(argument, in_order=False)
            else:
                self._expression(argument)

    def _comprehension(self, node: Comprehension, *, in_order: bool) -> None:
        before = dict(self._scope.bound) if self._scope is not None else {}
        for generator in node.generators:
            self._iterate(generator.iter, in_order=in_order)
            self._bind(generator.target, None)
            for condition in generator.ifs:
                self._expression(condition)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self._expression(part)
        if self._scope is not None:
            self._scope.bound = {**self._scope.bound, **before}

    def _iterate(self, iterable: ast.expr, *, in_order: bool = True) -> None:
        if in_order:
            self._orderly(iterable, resolved(iterable, self._find))
        self._expression(iterable)

    def _orderly(self, node: ast.AST, thing: Thing | None) -> None:
        rule = rule_of_order(thing)
        if rule is not None:
            self._finds(node, rule.names[0], rule)

    def _judge(self, node: ast.expr, call: ast.Call | None) -> bool:
        """Note what naming or calling this breaks, else where to read on; True: it breaks something."""
        thing = resolved(node, self._find)
        broken = judged(thing, call)
        if broken is None and isinstance(node, ast.Attribute):
            broken = self._by_spelling(node, call)
        if broken is not None:
            self._finds(node, broken[1], broken[0])
            return True
        if call is not None or not (isinstance(thing, Live) and is_a(thing.value, type)):
            self._use(thing, node)
        return False

    def _by_spelling(self, node: ast.Attribute, call: ast.Call | None) -> tuple[Rule, str] | None:
        owner = resolved(node.value, self._find)
        if node.attr == "fn" and isinstance(owner, Live) and is_a(owner.value, Activity):
            return BARE_ACTIVITY, BARE_ACTIVITY.names[0]
        if call is not None and node.attr in METHOD_NAMES:
            return METHOD_NAMES[node.attr], f"loop.{node.attr}"
        return None


def _makes_coroutine(callee: Thing | None) -> bool:
    """Tell whether calling it does nothing until what it returns is awaited."""
    match callee:
        case Live(value):
            return is_a(value, Activity) or inspect.iscoroutinefunction(value)
        case Member(kind, name):
            return inspect.iscoroutinefunction(inspect.getattr_static(kind, name, None))
        case Inner(node):
            return isinstance(node, ast.AsyncFunctionDef)
        case _:
            return False
