"""Reaching runs: signals and cancels (by memory where the run lives here, else by its inbox), and their attributes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, Protocol
from uuid import UUID, uuid5

from continuum.client.contracts import Contracts
from continuum.client.inputs import Json, answer, short_name
from continuum.client.venues import OwnTransactions, Venue, transaction_of
from continuum.codec import check_size
from continuum.definitions.catalog import Catalog
from continuum.errors import (
    DurableValueError,
    JournalUnavailable,
    RunNotActive,
    RunNotFound,
)
from continuum.journal.group import GroupCommitter
from continuum.journal.port import HostedJournal, OwnerJournal, ReadJournal
from continuum.model.attributes import ATTRIBUTES_MAX, checked
from continuum.model.messages import Message, MessageKind
from continuum.model.states import RunState
from continuum.model.writes import (
    Duplicate,
    Landed,
    Over,
    Post,
    Posted,
    Refused,
    SetAttributes,
    Unknown,
    Unwritable,
    Verdict,
)
from continuum.replay.turns import Errand
from continuum.runtime.awaiting import Awaiting
from continuum.runtime.delivery import Delivery
from continuum.runtime.dispatcher import Dispatcher
from continuum.runtime.execution import Execution
from continuum.runtime.heartbeater import Membership
from continuum.runtime.node import Node
from continuum.runtime.registry import Registry
from continuum.telemetry import heard

CANCEL_WAIT_SECONDS = 2.0  # for a run whose owner is alive elsewhere to honour a cancel, before it is "requested"


class TalkJournal(ReadJournal, OwnerJournal, HostedJournal, Protocol):
    """What is asked before and after a message is sent."""


class Talker:
    """Sends messages to runs."""

    def __init__(
        self,
        *,
        node: Node,
        journal: TalkJournal,
        registry: Registry[Execution],
        committer: GroupCommitter,
        delivery: Delivery,
        awaiting: Awaiting,
        dispatcher: Dispatcher,
        sweep: Callable[[], Awaitable[None]],
        membership: Membership,
        catalog: Catalog,
        payload_max: int,
    ) -> None:
        self._node = node
        self._journal = journal
        self._committer = committer
        self._delivery = delivery
        self._awaiting = awaiting
        self._dispatcher = dispatcher
        self._sweep = sweep
        self._membership = membership
        self._contracts = Contracts(catalog=catalog, journal=journal, registry=registry)
        self._payload_max = payload_max
        self._own: Venue = OwnTransactions(committer.put, journal)

    async def signal(
        self, run_id: str, name: str, payload: object, *, delivery_id: str | None, session: object = None
    ) -> Literal["delivered", "duplicate"]:
        """Deliver a signal once it is durable: journaled by its run, or in its inbox; or as a host's transaction ends."""
        venue = self._own if session is None else await transaction_of(session, self._journal)
        encoded = await self._contracts.encode(run_id, short_name(name, "name"), payload, venue.reads)
        message = Message(
            message_id=self._node.new_id(),
            run_id=run_id,
            kind=MessageKind.SIGNAL,
            name=name,
            payload=check_size(encoded, self._payload_max, "the payload of signal", name),
            delivery_id=None if delivery_id is None else short_name(delivery_id, "delivery_id"),
        )
        sent = self._send(message) if session is None else self._leave(message, venue)
        match verdict := await sent:
            case Landed() | Posted():
                if session is None and "signal.delivered" in heard:
                    self._node.emit("signal.delivered", run_id=run_id, signal=name)
                return "delivered"
            case Duplicate():
                self._node.emit("signal.duplicate", run_id=run_id, signal=name)
                return "duplicate"
            case _:
                raise _refusal(verdict, run_id, "signalled")

    async def carry(self, errand: Errand, label: str) -> str:
        """Send a message for a workflow, once, however often this is tried: `label` is its delivery id for ever."""
        if errand.kind is not MessageKind.SIGNAL:
            try:
                return await self.cancel(errand.run_id, compensate=errand.kind is MessageKind.COMPENSATE)
            except RunNotActive:
                row = await self._journal.run(errand.run_id)
                if row is not None and row.state is RunState.CANCELLED:  # perhaps by an earlier try of ours
                    return "cancelled"
                raise
        name = errand.name or ""
        payload = await self._contracts.encode(errand.run_id, name, Json(errand.payload or b"null"))
        message = Message(
            message_id=str(uuid5(UUID(errand.run_id), label)),
            run_id=errand.run_id,
            kind=MessageKind.SIGNAL,
            name=name,
            payload=payload,
            delivery_id=label,
        )
        match verdict := await self._delivery.post(message):
            case Posted() | Duplicate():  # a duplicate is an earlier try of ours
                self._node.emit("signal.delivered", run_id=errand.run_id, signal=name)
                return "delivered"
            case _:
                raise _refusal(verdict, errand.run_id, "signalled")

    async def cancel(
        self, run_id: str, *, compensate: bool = False, session: object = None
    ) -> Literal["cancelled", "requested"]:
        """Cancel a run: recorded first, then honoured by whoever holds it, or by us if nobody does.

        The message's nudge has told its holder: in memory, by HTTP, or by a notice. In a host's transaction it is
        recorded, and honoured after the commit.
        """
        kind = MessageKind.COMPENSATE if compensate else MessageKind.CANCEL
        message = Message(message_id=self._node.new_id(), run_id=run_id, kind=kind)
        if session is None:
            verdict = await self._delivery.post(message)
        else:
            verdict = await self._leave(message, await transaction_of(session, self._journal))
        if not isinstance(verdict, Posted):
            raise _refusal(verdict, run_id, "cancelled")
        if session is not None:
            return "requested"
        if not await self._is_held(verdict.lease_owner):  # so we end it, with or without its code
            await self._membership.ensure()
            await self._dispatcher.claim([run_id])
        ending = await self._awaiting.ending(run_id, wait_blocked=True, timeout_seconds=CANCEL_WAIT_SECONDS)
        if ending is not None and ending.state is not RunState.CANCELLED:
            raise RunNotActive(f"run {run_id} {ending.state.value} before it could be cancelled", run_id=run_id)
        return "cancelled" if ending is not None else "requested"

    async def set_attributes(self, run_id: str, attributes: object) -> None:
        """Merge search attributes into a run's, in one statement: concurrent changes to other names all stand."""
        changes = checked(attributes)
        match verdict := await self._committer.put(SetAttributes(run_id, changes)):
            case Landed():
                return
            case Refused():
                message = f"the attributes of run {run_id} would take more than {ATTRIBUTES_MAX} bytes of JSON"
                raise DurableValueError(message, path="/attributes", run_id=run_id)
            case _:
                raise _refusal(verdict, run_id, "changed")

    async def _is_held(self, owner: str | None) -> bool:
        """Tell whether a run's owner can honour a cancel; what one without a row holds is freed first."""
        if owner is None or owner == self._node.owner:
            return owner is not None
        if any(one.owner == owner for one in await self._journal.owners()):
            return True
        await self._sweep()
        return False

    async def _send(self, message: Message) -> Verdict:
        if message.delivery_id is None:
            settled: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            if self._delivery.offer(message, partial(answer, settled)):
                return await settled
        return await self._delivery.post(message)

    async def _leave(self, message: Message, venue: Venue) -> Verdict:
        """Put a message where a host's commit makes it seen; whoever can read it is told then."""
        verdict = await venue.put(Post(message))
        if isinstance(verdict, Posted):
            venue.then(partial(self._surfaced, message, verdict))
        return verdict

    def _surfaced(self, message: Message, verdict: Posted) -> None:
        if message.kind is MessageKind.SIGNAL:
            self._node.emit("signal.delivered", run_id=message.run_id, signal=message.name)
        self._delivery.surfaced(message, verdict)


def _refusal(verdict: Verdict, run_id: str, done: str) -> Exception:
    match verdict:
        case Unknown():
            return RunNotFound(f"there is no run {run_id} in this instance", run_id=run_id)
        case Over():
            return RunNotActive(f"run {run_id} has ended and can no longer be {done}", run_id=run_id)
        case Unwritable(JournalUnavailable() as error):  # the instance stopped: nobody knows what became of it
            return error
        case Unwritable(error):
            return DurableValueError(f"the database refuses this: {error}", run_id=run_id)
        case _:
            return RunNotActive(f"run {run_id} was not {done}: {verdict}", run_id=run_id)
