"""Decides whether naming or calling a thing is forbidden."""

from __future__ import annotations

import ast
import inspect
import re

from continuum.definitions.purity.naming import bound_to, is_a, is_routine, names_of
from continuum.definitions.purity.rules import BY_NAME, PURE, SHARED_BY_NAME, Rule, covers
from continuum.definitions.purity.things import Live, Member, Named, Thing

_TABLE = frozenset((*BY_NAME, *PURE))
_ERROR = re.compile(r"(Error|Exception|Warning|Timeout)$")


def judged(thing: Thing | None, call: ast.Call | None) -> tuple[Rule, str] | None:
    """Return the rule that a thing breaks here and the name that it is forbidden by; `call`: it is called.

    Exceptions of a forbidden module are allowed (they are caught and raised), and so are its constants.
    """
    if isinstance(thing, Live):
        thing = bound_to(thing.value) or thing
    if call is not None and isinstance(thing, Live) and not _is_code(thing.value):
        thing = Member(type(thing.value), "__call__", thing)  # a session factory, a logger adapter …
    shared = _judged_as_shared(thing, call)
    if shared is not None:
        return shared
    for name in names_of(thing):
        known = name if name in BY_NAME else covers(_TABLE, name)
        if known is None:
            continue
        rule = BY_NAME.get(known) if known == name or known not in PURE else None
        if rule is None or not _is_broken(rule, thing, call):
            return None
        return rule, name
    return None


def _judged_as_shared(thing: Thing | None, call: ast.Call | None) -> tuple[Rule, str] | None:
    owner = thing.owner if isinstance(thing, Member) else thing
    if not isinstance(owner, Live) or _is_code(owner.value):
        return None
    for name in names_of(Live(type(owner.value))):
        rule = SHARED_BY_NAME.get(name)
        if rule is not None and (rule.on_sight or (isinstance(thing, Member) and _is_broken(rule, thing, call))):
            return rule, name
    return None


def _is_broken(rule: Rule, thing: Thing | None, call: ast.Call | None) -> bool:
    if rule.on_sight:
        return True
    if call is None:
        return _is_function(thing)
    if _is_error(thing):
        return False
    return rule.unless is None or not rule.unless(call)


def _is_code(value: object) -> bool:
    return is_routine(value) or is_a(value, (type, type(inspect)))


def _is_function(thing: Thing | None) -> bool:
    match thing:
        case Live(value):
            return is_routine(value)
        case Member(kind, name):
            return is_routine(inspect.getattr_static(kind, name, None))
        case _:
            return False


def _is_error(thing: Thing | None) -> bool:
    match thing:
        case Live(value) if is_a(value, type):
            return issubclass(value, BaseException)
        case Named(path):
            return _ERROR.search(path) is not None
        case _:
            return False
