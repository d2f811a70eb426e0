"""What runs of one family say to each other, and under which ids: so that each thing is said once, whoever says it."""

from __future__ import annotations

from uuid import UUID, uuid5

from continuum.model.events import PENDING, Event, EventType
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import NewChild, NewRun
from continuum.model.states import RunState
from continuum.model.writes import Commit, Start

ENDED = {
    RunState.COMPLETED: MessageKind.CHILD_COMPLETED,
    RunState.FAILED: MessageKind.CHILD_FAILED,
    RunState.CANCELLED: MessageKind.CHILD_CANCELLED,
}


def ended(parent: str, child: str, state: RunState, last: Event) -> Message:
    """Return what a parent hears of its child's end."""
    payload = None if state is RunState.CANCELLED else last.payload
    return Message(
        message_id=str(uuid5(UUID(child), "ended")), run_id=parent, kind=ENDED[state], name=child, payload=payload
    )


def cascaded(child: str, parent: str, kind: MessageKind) -> Message:
    """Return the cancel that a cancelled parent sends; it is cancelled once, so its id says which it is."""
    return Message(message_id=str(uuid5(UUID(child), f"cascade/{parent}")), run_id=child, kind=kind)


def started(child: NewChild) -> Start:
    """Return a child as a run that is started for whoever claims it."""
    event = Event(1, EventType.STARTED, child.at, name=child.workflow, payload=child.arguments, key=PENDING)
    run = NewRun(child.run_id, child.workflow, child.version, child.namespace)
    return Start(run=run, state=RunState.PENDING, owner=None, events=(event,))


def known(
    parent: Start | Commit, child: NewChild, *, namesake: tuple[str | None, str, bytes | None], state: RunState | None
) -> MessageKind | None:
    """Return what a parent hears of a run that has its child's id already; None if that will tell its end itself.

    `namesake` is its parent, workflow and fingerprint. An earlier generation asked for the same child: it is the same.
    Anybody else's run is not.
    """
    if state is None or namesake != (parent.run_id, child.workflow, child.fingerprint):
        return MessageKind.CHILD_FAILED
    return ENDED[state] if state.has_ended else None


def told(parent: Start | Commit, child: NewChild, kind: MessageKind, payload: bytes | None) -> Message:
    """Return the message by which a parent hears that.

    Each generation that asks is told under an id of its own, or it would be taken for what an earlier one has read.
    """
    name = f"known/{parent.run_id}/{parent.generation}/{child.command_id}"
    message_id = str(uuid5(UUID(child.run_id), name))
    return Message(message_id=message_id, run_id=parent.run_id, kind=kind, name=child.run_id, payload=payload)
