"""What an expression stands for, as far as reading can tell. None, everywhere: it cannot."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """An object that exists already: a global, a closure's, a module's. `path`: how it was spelled, imports resolved."""

    value: Any
    path: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """Something of a module that is not loaded yet: all that is known is its name."""

    path: str


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """An object of this class that the code makes while it runs."""

    kind: type


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """An attribute of a class or of an object of it; `owner` is the object if it exists already."""

    kind: type
    name: str
    owner: Live | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SetOf:
    """A set whose order is not that of the code; `of_tasks`: one that `asyncio.wait` returned."""

    of_tasks: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Waited:
    """What awaiting `asyncio.wait` gives: a pair of sets of tasks."""


@dataclass(frozen=True, slots=True, eq=False)
class Inner:
    """A function or lambda that is defined in code that was read; `find` looks names up where it stands."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    find: Callable[[str], Thing | None]


Thing = Live | Named | Made | Member | SetOf | Waited | Inner
Find = Callable[[str], Thing | None]
