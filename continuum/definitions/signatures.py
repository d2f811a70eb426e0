"""Reads a function: its durable name, its parameters, its result; refuses at the decorator what cannot work later."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from continuum.codec import Parameters, Shape, shape_of
from continuum.errors import DefinitionError


def durable_name(fn: Callable[..., Any]) -> str:
    """Return `module.qualname`; in `__main__` the module is what was run: its spec's name, else the file's stem."""
    return f"{module_of(fn)}.{fn.__qualname__}"


def module_of(fn: Callable[..., Any]) -> str:
    """Return the module that a function is found in: of `__main__`, what was run."""
    if fn.__module__ != "__main__":
        return fn.__module__
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name: str = spec.name
        return name.removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"


class Unresolved(DefinitionError):
    """Annotations use something that is not defined, or not yet."""


class Signature:
    """A function's parameters and result as shapes.

    Annotations are resolved at the decorator if they can be, else (names defined further down) at the first use.
    """

    def __init__(self, fn: Callable[..., Any], kind: str, *, injected: int = 0, scope: FrameType | None = None) -> None:
        self._fn = fn
        self._kind = kind
        self._scope: dict[str, Any] | None = dict(scope.f_locals) if scope is not None else None
        signature = inspect.signature(fn)
        kept = list(signature.parameters.values())[injected:]
        self._signature = signature.replace(parameters=kept)
        _refuse_unusable(fn, kind, self._signature)
        with suppress(Unresolved):
            _ = self.parameters, self.result
            self._scope = None

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        try:
            return typing.get_type_hints(self._fn, localns=self._scope, include_extras=True)
        except (NameError, AttributeError) as error:
            raise self._unresolved(error) from error
        except (TypeError, SyntaxError) as error:
            raise DefinitionError(f"{self._kind} {self._fn.__qualname__}: an annotation is no type: {error}") from error

    @cached_property
    def parameters(self) -> Parameters:
        """The arguments by name."""
        try:
            return Parameters(self._fn.__qualname__, self._signature, self._hints)
        except NameError as error:
            raise self._unresolved(error) from error

    @property
    def fields(self) -> Mapping[str, tuple[Any, bool]]:
        """The parameters' annotations by name, and whether each has a default: what a schema is made of."""
        parameters = self._signature.parameters.items()
        return {name: (self._hints[name], one.default is not one.empty) for name, one in parameters}

    @cached_property
    def result(self) -> Shape:
        """What is returned; without an annotation, plain JSON."""
        return shape_of(self._hints.get("return", Any))

    def _unresolved(self, error: Exception) -> Unresolved:
        return Unresolved(
            f"{self._kind} {self._fn.__qualname__}: its annotations use something that is not defined: {error}; "
            "define or import it at the module's top level"
        )


def _refuse_unusable(fn: Callable[..., Any], kind: str, signature: inspect.Signature) -> None:
    where = f"{kind} {fn.__qualname__}"
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise DefinitionError(f"{where}: *args and **kwargs cannot be stored by name; take a list or dict instead")
        if parameter.annotation is parameter.empty:
            hint = "; for a method's work define a function and pass what it needs" if name in ("self", "cls") else ""
            raise DefinitionError(f"{where}: parameter {name!r} needs a type annotation, it is stored by it{hint}")


def refuse_wrong_kind(fn: Any, kind: str) -> None:
    """Raise DefinitionError for what is no plain function: lambdas, methods, generators, classes, callables."""
    if isinstance(fn, str):
        raise DefinitionError(f"@{kind} takes a name by keyword: @{kind}(name={fn!r})")
    if not inspect.isfunction(fn):
        raise DefinitionError(f"@{kind} decorates functions, not {fn!r}; wrap it in a function with annotations")
    if fn.__name__ == "<lambda>":
        raise DefinitionError(f"@{kind} needs a name to find the code by: turn the lambda into a function")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(f"{kind} {fn.__qualname__} is a generator: return a list instead of yielding")
