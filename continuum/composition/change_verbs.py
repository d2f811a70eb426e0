"""The verbs about versions and change as functions: each finds its instance and asks it."""

from __future__ import annotations

from typing import Any

from continuum.client.preflight import Preflight, Watch
from continuum.client.versions import WorkflowVersion
from continuum.composition.verbs import resolve
from continuum.definitions.workflow import Workflow


async def versions(*, instance: str | None = None) -> tuple[WorkflowVersion, ...]:
    """Return every version of a workflow that an open run needs or a living node carries.

    Of patches it says how many open runs have journaled that they take them; `preflight` knows more, for it has the code.

    Raises:
        InstanceNotRegistered, InstanceNotStarted, WrongEventLoop, JournalUnavailable.
    """
    return await resolve(instance).versions()


async def preflight(
    *,
    instance: str | None = None,
    workflow: str | Workflow[..., Any] | None = None,
    sample: int | None = None,
    watch: Watch | None = None,
) -> Preflight:
    """Replay the open runs against the code of this process, touching nothing, and return what they would stumble over.

    Args:
        workflow: only runs of this workflow, given by its definition or name.
        sample: at most so many runs of each workflow and version, from the oldest to the newest of them.
        watch: is told after each run how many are done, of how many.

    Raises:
        InputInvalid: `sample` is no number of runs.
        InstanceNotRegistered, InstanceNotStarted, WrongEventLoop, JournalUnavailable.
    """
    return await resolve(instance).preflight(workflow=workflow, sample=sample, watch=watch)
