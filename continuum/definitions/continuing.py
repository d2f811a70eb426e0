"""`continue_as_new`: the same run, with a fresh history."""

from __future__ import annotations

from typing import Any, NoReturn

from continuum.definitions.calls import Call
from continuum.definitions.catalog import catalog
from continuum.definitions.workflow import Workflow
from continuum.errors import NotAllowedHere
from continuum.replay.context import machine_for


def continue_as_new(*args: Any) -> NoReturn:
    """End this generation of the run and begin the next one: from the top, with these arguments and an empty history.

    The run keeps its id, so whoever signals, cancels or awaits it notices nothing. Unread signals, children, attributes
    and what is owed go along; open activities and timers do not. The newest version of the workflow takes over, and the
    arguments are checked against it. Call it in the workflow's own task, and let its BaseException through.

    Args:
        args: the workflow's positional arguments, or one `flow.bound(...)` of this workflow.

    Raises:
        InputInvalid: the arguments do not fit the newest version.
        NotAllowedHere: in another task than the workflow's own.
        NotInWorkflow: outside of a workflow.
    """
    machine = machine_for("continue_as_new()")
    newest: Workflow[..., Any] = catalog().workflow(machine.info.workflow)
    kwargs: Any = {}
    if len(args) == 1 and isinstance(args[0], Call):
        call: Call[Any] = args[0]
        if getattr(call.definition, "name", None) != newest.name:
            raise NotAllowedHere(f"a run of {newest.name} continues as itself, not as {call.definition!r}")
        args, kwargs = call.args, call.kwargs
    machine.continue_as_new(newest.version, newest.signature.parameters.encode(args, kwargs))
