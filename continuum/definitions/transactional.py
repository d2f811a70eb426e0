"""What makes an activity transactional: its first parameter is the session that it is given, and never passed.

The session is found by its annotation, so that it may have any name. Callers do not see it (`Concatenate` takes it off
for type checkers), it is not stored, and changing its class changes nothing for runs that wait.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from types import FrameType
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from continuum.errors import DefinitionError, NotInWorkflow

SHAPE = "`async def book(session: AsyncSession, order: Order) -> int`"


def session_class_of(fn: Callable[..., Any], scope: FrameType | None) -> type[AsyncSession]:
    """Return the class of the session that a transactional activity is given.

    Raises:
        DefinitionError: the function cannot be one; the message says what to do.
    """
    where = f"transactional activity {fn.__qualname__}"
    if not inspect.iscoroutinefunction(fn):
        raise DefinitionError(
            f"{where} is a `def`, which runs in a thread of its own; the session belongs to the host's event loop: "
            f"write {SHAPE}"
        )
    found = _sessions(fn, scope)
    if not found:
        raise DefinitionError(
            f"{where} takes no session: annotate its first parameter with sqlalchemy.ext.asyncio.AsyncSession, imported "
            f"at run time (not under TYPE_CHECKING), as in {SHAPE}"
        )
    first = next(iter(inspect.signature(fn).parameters.values()))
    if list(found) != [first.name] or first.kind is first.KEYWORD_ONLY:
        raise DefinitionError(
            f"{where} must take one session, as its first parameter, and it has {', '.join(found)} among its "
            f"parameters: write {SHAPE}"
        )
    return found[first.name]


def refuse_sessions(fn: Callable[..., Any], scope: FrameType | None) -> None:
    """Raise DefinitionError if an activity that is not transactional takes a session."""
    for name in _sessions(fn, scope):
        raise DefinitionError(
            f"activity {fn.__qualname__}: {name!r} is a session, which cannot be journaled. With "
            "@activity(transactional=True) it is injected, and what is written with it commits with the activity's "
            "end; otherwise open a session inside of the activity"
        )


def only_in_workflows(name: str, fn: Callable[..., Any]) -> NotInWorkflow:
    """Return the error of a transactional activity that was called outside of a workflow."""
    return NotInWorkflow(
        f"activity {name} is transactional: its session commits with the end of a task, so it must be called in a "
        f"workflow. To test the function alone, call {fn.__name__}.fn(session, …) with a session of your own"
    )


def _sessions(fn: Callable[..., Any], scope: FrameType | None) -> dict[str, type[AsyncSession]]:
    """Return the parameters that are annotated as sessions. What cannot be resolved yet is something else."""
    found: dict[str, type[AsyncSession]] = {}
    for name, parameter in inspect.signature(fn).parameters.items():
        annotation = _resolved(parameter.annotation, fn, scope)
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        if isinstance(annotation, type) and issubclass(annotation, AsyncSession):
            found[name] = annotation
    return found


def _resolved(annotation: Any, fn: Callable[..., Any], scope: FrameType | None) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(fn, "__globals__", {}), scope.f_locals if scope is not None else None)  # noqa: S307  as typing.get_type_hints does
    except Exception:  # noqa: BLE001  an annotation is any expression; the signature complains of what is wrong with it
        return None
