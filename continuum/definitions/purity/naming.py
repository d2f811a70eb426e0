"""By which names the table of rules may know a thing.

An object is known by where it is documented, not by where it happens to be implemented: `random.choice` is a bound
method of a hidden object, `os.getpid` lives in `posix`, `pathlib.Path` in a private module of some Python versions. So
every name in the table is looked up in the modules that are loaded, and objects are recognised by identity.

Objects are looked at, never asked: `isinstance` and `getattr` would wake lazy ones (settings, proxies, connections).
"""

from __future__ import annotations

import builtins
import functools
import inspect
import os
import sys
import types
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from continuum.definitions.purity.rules import BY_NAME, PURE, SHARED_BY_NAME
from continuum.definitions.purity.things import Live, Member, Named, Thing

ROUTINES = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    staticmethod,
    classmethod,
    functools.partial,
    functools._lru_cache_wrapper,  # noqa: SLF001  # what `functools.cache` makes; it has no public name
)
_HOMES = {"os": ("posix", "nt"), "os.path": ("posixpath", "ntpath", "genericpath")}  # where functions say they are
_MISSING = object()
_known: dict[int, tuple[Any, str]] = {}  # id → the object, held so that no other takes its id, and its name
_found: set[str] = set()  # names of the table that were found in loaded modules
_seen = types.SimpleNamespace(modules=0)  # how many modules there were at the last look


def is_a(value: Any, kinds: type | tuple[type, ...]) -> bool:
    """Tell whether an object's class is one of these, without asking the object."""
    return issubclass(type(value), kinds)


def is_routine(value: Any) -> bool:
    """Tell whether an object is a function or a method of whatever kind."""
    return is_a(value, ROUTINES)


def names_of(thing: Thing | None) -> tuple[str, ...]:
    """Return the dotted names of a thing, the most specific first."""
    match thing:
        case Named(path):
            return (path,)
        case Member(kind, name, owner):
            spelled = names_of(owner) if owner is not None else ()
            return tuple(f"{known}.{name}" for known in (*spelled, *_class_names(kind)))
        case Live(value, path):
            return (*(() if path is None else (path,)), *_names_of_object(value))
        case _:
            return ()


def recognise_what_is_loaded() -> None:
    """Recognise what the table names in modules that were imported since the last time."""
    if len(sys.modules) == _seen.modules:
        return
    _seen.modules = len(sys.modules)
    for name in (*BY_NAME, *PURE, *SHARED_BY_NAME):
        if name not in _found:
            thing = loaded(name)
            if thing is not None:
                _found.add(name)
                _recognise(name, thing.value)


def _recognise(name: str, value: Any) -> None:
    if is_a(value, ModuleType):
        for member, own in _public(name, value):
            _known.setdefault(id(own), (own, f"{name}.{member}"))
        return
    parent = name.rpartition(".")[0]
    owner = loaded(parent) if parent else None
    if owner is not None and is_a(owner.value, type):  # a method: it is its class that must be recognised
        _known[id(owner.value)] = (owner.value, parent)
    else:
        _known[id(value)] = (value, name)


def _public(path: str, module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield a module's own functions and classes, not what it imported for itself."""
    homes = {path, f"_{path}", *_HOMES.get(path, ())}
    for name, value in list(vars(module).items()):
        if not name.startswith("_") and (is_routine(value) or is_a(value, type)):
            home = _home_of(value)
            if home in homes or home.startswith(f"{path}."):
                yield name, value


def _home_of(value: Any) -> str:
    owner = getattr(value, "__self__", None)  # of a builtin its module, of a method its object
    bound = owner.__name__ if isinstance(owner, ModuleType) else type(owner).__module__
    return str(getattr(value, "__module__", None) or bound)


def loaded(path: str) -> Live | None:
    """Return what a dotted path (or the name of a builtin) means, if its module is loaded; nothing is imported."""
    head, rest = path, list[str]()
    while head and head not in sys.modules:
        head, _, part = head.rpartition(".")
        rest.insert(0, part)
    value: Any = sys.modules[head] if head else builtins
    for part in rest:
        value = inspect.getattr_static(value, part, _MISSING)
        if value is _MISSING:
            return None
    return Live(value, path)


def name_of_module(module: ModuleType) -> str:
    """Return a module's name; that of `os.path` is another on each platform."""
    return "os.path" if module is os.path else module.__name__


def _class_names(kind: type) -> tuple[str, ...]:
    return tuple(_own_name(base) for base in kind.__mro__)


def _own_name(value: Any) -> str:
    known = _known.get(id(value))
    if known is not None:
        return known[1]
    module = str(getattr(value, "__module__", None) or "")
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    return f"{name}" if module == "builtins" else f"{module}.{name}"


def _names_of_object(value: Any) -> tuple[str, ...]:
    known = _known.get(id(value))
    if known is not None:
        return (known[1],)
    if is_a(value, ModuleType):
        return (name_of_module(value),)
    if is_a(value, type):
        return _class_names(value)
    if is_a(value, functools.partial):
        return _names_of_object(value.func)
    bound = bound_to(value)
    return (_own_name(value),) if bound is None and is_routine(value) else names_of(bound)


def bound_to(value: Any) -> Member | None:
    """Return what a method is bound to, unless it is known by a name of its own, as `random.choice` is."""
    owner = getattr(value, "__self__", None) if is_routine(value) and id(value) not in _known else None
    if owner is None or is_a(owner, ModuleType):
        return None
    if is_a(owner, type):
        return Member(owner, value.__name__)
    return Member(type(owner), value.__name__, Live(owner))
