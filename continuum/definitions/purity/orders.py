"""Where the order of a set decides, and where it does not."""

from __future__ import annotations

import ast
import asyncio
import collections
from collections.abc import Iterator

from continuum.definitions.purity.naming import is_a, names_of
from continuum.definitions.purity.resolving import ORDERLY, SETS, resolved
from continuum.definitions.purity.rules import SET_ORDER, WAIT_ORDER, Rule
from continuum.definitions.purity.things import Find, Live, SetOf, Thing

IN_ORDER = (list, tuple, enumerate, iter, zip, map, filter, collections.deque, asyncio.as_completed)
IN_ANY_ORDER = (sorted, set, frozenset, sum, min, max, any, all, len, collections.Counter)
METHODS_IN_ORDER = frozenset({"join", "extend", "fromkeys", "extendleft", "writelines"})


def rule_of_order(thing: Thing | None) -> Rule | None:
    """Return the rule that iterating over a thing breaks."""
    if isinstance(thing, Live) and is_a(thing.value, SETS):
        return None if all(is_a(element, ORDERLY) for element in thing.value) else SET_ORDER
    if not isinstance(thing, SetOf):
        return None
    return WAIT_ORDER if thing.of_tasks else SET_ORDER


def ignores_order(callee: Thing | None) -> bool:
    """Tell whether a function gives the same, in whatever order its argument comes."""
    return isinstance(callee, Live) and any(callee.value is one for one in IN_ANY_ORDER)


def ordered_by(call: ast.Call, callee: Thing | None, find: Find) -> Iterator[Rule]:
    """Yield a rule for each set that a call takes in its order."""
    is_method = isinstance(call.func, ast.Attribute) and call.func.attr in METHODS_IN_ORDER
    takes = isinstance(callee, Live) and any(callee.value is one for one in IN_ORDER)
    if takes or is_method or names_of(callee)[:1] == ("dict.fromkeys",):
        for argument in call.args:
            rule = rule_of_order(resolved(argument, find))
            if rule is not None:
                yield rule
    if isinstance(call.func, ast.Attribute) and call.func.attr == "pop" and not call.args:
        rule = rule_of_order(resolved(call.func.value, find))
        if rule is not None:
            yield rule
