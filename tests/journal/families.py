"""Values and steps for runs with children and generations."""

import hashlib
from datetime import datetime
from uuid import UUID, uuid5

from msgspec.structs import replace

from continuum.journal.port import Journal
from continuum.model.events import Event, EventType
from continuum.model.messages import Message, MessageKind
from continuum.model.runs import NewChild
from continuum.model.states import RunState
from continuum.model.writes import Commit, NextGeneration
from tests.journal.builders import (
    AT,
    MINE,
    OTHER,
    WORKFLOW,
    Lease,
    a_commit,
    an_event,
    numbered,
    started,
)
from tests.journal.steps import land

TAKEN = b'{"type":"RunIdTaken","message":"taken"}'


def a_child(
    parent: str, key: str = "one", *, command_id: int = 1, arguments: bytes = b'{"n":1}', run_id: str | None = None
) -> NewChild:
    """A child as a parent's turn asks for it."""
    return NewChild(
        run_id=run_id or str(uuid5(UUID(parent), key)),
        command_id=command_id,
        workflow=WORKFLOW,
        version=1,
        arguments=arguments,
        namespace="tenant",
        depth=1,
        fingerprint=hashlib.sha256(arguments).digest(),
        at=AT,
        taken=TAKEN,
        retention_seconds=60.0,
    )


def child_started(child: NewChild) -> Event:
    return an_event(EventType.CHILD_STARTED, command_id=child.command_id, name=child.workflow, payload=child.arguments)


def asking(lease: Lease, *children: NewChild) -> Commit:
    """The commit of a turn that asks for children."""
    return replace(a_commit(lease, *map(child_started, children)), children=children)


def continuing(
    lease: Lease, *carried: Event, read: tuple[Message, ...] = (), version: int = 1, at: datetime = AT
) -> Commit:
    """The commit that ends a generation and opens the next one."""
    opened = numbered((started(b'{"order":2}'), *carried), 0)
    last = replace(an_event(EventType.CONTINUED, payload=b'{"order":2}'), at=at)
    return replace(a_commit(lease, last, read=read), continues=NextGeneration(version, opened))


def reopened(lease: Lease, commit: Commit) -> Lease:
    """Return the lease as it stands after a continuing commit."""
    assert commit.continues is not None
    return replace(lease, generation=lease.generation + 1, base_seq=len(commit.continues.events))


async def next_generation(journal: Journal, lease: Lease, *carried: Event) -> Lease:
    """Continue a run; return its lease."""
    commit = continuing(lease, *carried)
    await land(journal, commit)
    return reopened(lease, commit)


async def child_of(journal: Journal, lease: Lease, child: NewChild, *, owner: str = OTHER) -> Lease:
    """Ask for a child and claim it; return the child's lease."""
    await land(journal, asking(lease, child))
    (taken,) = (await journal.claim_runs(owner, workflows=MINE, limit=1, run_ids=[child.run_id])).runs
    return Lease(taken.run_id, owner=owner, token=taken.token, base_seq=taken.last_seq)


def news(parent: str, child: str, kind: MessageKind = MessageKind.CHILD_COMPLETED) -> Message:
    """What a child's final commit tells its parent."""
    return Message(message_id=str(uuid5(UUID(child), "ended")), run_id=parent, kind=kind, name=child, payload=b'"done"')


def telling(commit: Commit, *posts: Message, cascade: MessageKind | None = None) -> Commit:
    """Return a commit that also says something to other runs."""
    return replace(commit, posts=posts, cascade=cascade)


async def cancelling_run(journal: Journal, lease: Lease) -> Lease:
    """Let a run undo what it owes."""
    request = an_event(EventType.CANCEL_REQUESTED)
    await land(journal, a_commit(lease, request, state=RunState.CANCELLING))
    return lease.after(1)
