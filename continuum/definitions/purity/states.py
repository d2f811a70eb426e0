"""What outlives a run: objects that existed before it. Changing them is an effect that no journal knows."""

from __future__ import annotations

import ast
from collections.abc import MutableMapping, MutableSequence, MutableSet

from continuum.definitions.purity.naming import is_a
from continuum.definitions.purity.resolving import resolved
from continuum.definitions.purity.things import Find, Live

CONTAINERS = (MutableMapping, MutableSequence, MutableSet)
CHANGES = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "difference_update",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "intersection_update",
        "move_to_end",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "reverse",
        "rotate",
        "setdefault",
        "sort",
        "subtract",
        "symmetric_difference_update",
        "update",
    ]
)


def is_shared(node: ast.expr, find: Find) -> bool:
    """Tell whether an expression reaches into an object that existed before the run: `CACHE`, `CACHE["a"].b`."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and isinstance(resolved(node, find), Live)


def changes(call: ast.Call, find: Find) -> bool:
    """Tell whether a call changes a list, dict or set that existed before the run."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in CHANGES:
        return False
    root = call.func.value
    while isinstance(root, ast.Subscript | ast.Attribute):
        inner = resolved(root, find)
        if isinstance(inner, Live):
            return is_a(inner.value, CONTAINERS)
        root = root.value
    thing = resolved(root, find) if isinstance(root, ast.Name) else None
    return isinstance(thing, Live) and is_a(thing.value, CONTAINERS)
