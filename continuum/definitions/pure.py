"""`@pure`: a helper of workflows, checked where it stands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from continuum.definitions.purity.checking import MARK, Purity, check
from continuum.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")


class PureDecorator(Protocol):
    """What `@pure(...)` with options returns."""

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate."""
        ...


@overload
def pure(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def pure(*, purity: Purity | None = ..., allow: Sequence[str] = ...) -> PureDecorator: ...
def pure(fn: Callable[..., Any] | None = None, /, *, purity: Purity | None = None, allow: Sequence[str] = ()) -> Any:
    """Mark a function as one that workflows may call: it is checked as they are, here and once. Returned as it is.

    Helpers that are not marked are checked from each workflow that calls them.

    Args:
        purity: "error" (the default, or what `CONTINUUM_PURITY` says), "warn" or "off".
        allow: names that it may use all the same, such as `("logging",)` or `("shop.rates.cached",)`.

    Raises:
        PurityError: it does what would not replay; the message says where and what to do instead.
        DefinitionError: it is no function, or an option is not what it must be.
    """

    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isfunction(fn):
            raise DefinitionError(f"@pure marks functions, not {fn!r}; mark the methods of a class one by one")
        check(fn, f"@pure {fn.__module__}.{fn.__qualname__}", purity=purity, allow=allow)
        setattr(fn, MARK, True)
        return fn

    return decorate if fn is None else decorate(fn)
