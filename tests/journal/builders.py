"""Values to arrange with. What a test does not name has a sensible default; event positions are filled in."""

from datetime import UTC, datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from continuum.ids import uuid7
from continuum.model.events import Event, EventType
from continuum.model.messages import Message, MessageKind
from continuum.model.owners import Owner
from continuum.model.policy import Retry
from continuum.model.runs import Attributes, NewRun
from continuum.model.states import RunState
from continuum.model.tasks import Attempt, NewTask, TaskKey, TaskOptions
from continuum.model.writes import Commit, Finish, ReadMessage, Start

OWNER = "node-1/continuum/boot-1/1"
OTHER = "node-2/continuum/boot-2/1"
URL = "http://10.0.0.1:8000/continuum"
WORKFLOW = "orders.fulfil"
MINE = ((WORKFLOW, 1),)  # what the nodes of these tests carry
ACTIVITY = "payments.charge"
AT = datetime(
    2026, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC
)  # a turn's time: the writer's business, never compared with now
TTL = 30.0


class Lease(Struct, frozen=True, gc=False):
    """What an execution knows of its run, and names in every commit."""

    run_id: str
    owner: str = OWNER
    token: int = 1
    base_seq: int = 1
    generation: int = 1

    def after(self, events: int) -> "Lease":
        """Return the lease as it stands when that many events have landed."""
        return replace(self, base_seq=self.base_seq + events)


def an_owner(owner: str = OWNER, *, advertise_url: str | None = None) -> Owner:
    return Owner(owner=owner, instance="continuum", node=owner.partition("/")[0], advertise_url=advertise_url)


# --- events -----------------------------------------------------------------------------------------------------------


def an_event(
    type: EventType,
    *,
    command_id: int | None = None,
    message_id: str | None = None,
    name: str | None = None,
    payload: bytes | None = None,
    key: str | None = None,
) -> Event:
    return Event(0, type, AT, command_id=command_id, message_id=message_id, name=name, payload=payload, key=key)


def started(payload: bytes = b'{"order":1}') -> Event:
    return an_event(EventType.STARTED, payload=payload)


def signal_received(message: Message) -> Event:
    return an_event(
        EventType.SIGNAL_RECEIVED, message_id=message.message_id, name=message.name, payload=message.payload
    )


def scheduled(command_id: int = 1, *, payload: bytes = b"[100]", key: str | None = None) -> Event:
    return an_event(EventType.ACTIVITY_SCHEDULED, command_id=command_id, name=ACTIVITY, payload=payload, key=key)


def answered(command_id: int = 1, *, message_id: str | None = None) -> Event:
    return an_event(
        EventType.ACTIVITY_COMPLETED, command_id=command_id, message_id=message_id, name=ACTIVITY, payload=b'"paid"'
    )


def timer_started(command_id: int = 1) -> Event:
    return an_event(EventType.TIMER_STARTED, command_id=command_id, payload=b"1790000000000000")


def completed(payload: bytes = b'"done"') -> Event:
    return an_event(EventType.COMPLETED, payload=payload)


def failed(payload: bytes = b'{"type":"ValueError","message":"no"}') -> Event:
    return an_event(EventType.FAILED, payload=payload)


def cancelled() -> Event:
    return an_event(EventType.CANCELLED)


ENDINGS = {RunState.COMPLETED: completed, RunState.FAILED: failed, RunState.CANCELLED: cancelled}


def numbered(events: tuple[Event, ...], base_seq: int) -> tuple[Event, ...]:
    return tuple(replace(event, seq=base_seq + place) for place, event in enumerate(events, start=1))


# --- writes -----------------------------------------------------------------------------------------------------------


def a_run(
    run_id: str | None = None,
    *,
    workflow: str = WORKFLOW,
    version: int = 1,
    namespace: str = "default",
    key: str | None = None,
    attributes: Attributes | None = None,
    retention_seconds: float | None = 60.0,
) -> NewRun:
    return NewRun(
        run_id=run_id or uuid7(),
        workflow=workflow,
        version=version,
        namespace=namespace,
        attributes=attributes,
        idempotency_key=key,
        fingerprint=b"fingerprint" if key is not None else None,
        retention_seconds=retention_seconds,
        trace_context="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )


def a_start(
    run: NewRun | None = None,
    *events: Event,
    owner: str | None = OWNER,
    state: RunState = RunState.RUNNING,
    tasks: tuple[NewTask, ...] = (),
    wake_at: datetime | None = None,
    chosen: bool = False,
) -> Start:
    """A start that is leased to OWNER; its first turn did nothing unless `events` says what."""
    run = run or a_run()
    events = numbered((started(), *events), 0)
    return Start(run=run, state=state, owner=owner, events=events, tasks=tasks, wake_at=wake_at, chosen=chosen)


def an_unleased_start(run: NewRun | None = None, *, wake_at: datetime | None = None, chosen: bool = False) -> Start:
    return a_start(run, owner=None, state=RunState.PENDING, wake_at=wake_at, chosen=chosen)


def a_commit(
    lease: Lease,
    *events: Event,
    tasks: tuple[NewTask, ...] = (),
    resolved: tuple[int, ...] = (),
    read: tuple[Message, ...] = (),
    state: RunState | None = None,
    wake_at: datetime | None = None,
    releases: bool = False,
    reason: str | None = None,
    backoff_seconds: float | None = None,
) -> Commit:
    return Commit(
        run_id=lease.run_id,
        generation=lease.generation,
        owner=lease.owner,
        token=lease.token,
        base_seq=lease.base_seq,
        events=numbered(events, lease.base_seq),
        tasks=tasks,
        resolved=resolved,
        read=tuple(ReadMessage(message.message_id, message.delivery_id is not None) for message in read),
        state=state,
        wake_at=wake_at,
        releases=releases,
        reason=reason,
        backoff_seconds=backoff_seconds,
    )


def an_ending(lease: Lease, state: RunState = RunState.COMPLETED) -> Commit:
    return a_commit(lease, ENDINGS[state](), state=state)


def a_release(lease: Lease, *, state: RunState = RunState.SUSPENDED, wake_at: datetime | None = None) -> Commit:
    return a_commit(lease, state=state, wake_at=wake_at, releases=True)


def a_block(lease: Lease, *, reason: str = "the code has changed", backoff_seconds: float = 60.0) -> Commit:
    return a_commit(lease, state=RunState.BLOCKED, releases=True, reason=reason, backoff_seconds=backoff_seconds)


def a_task(
    command_id: int = 1,
    *,
    seq: int = 2,
    activity: str = ACTIVITY,
    max_attempts: int = 3,
    queue: str = "default",
    priority: int = 0,
    leased: bool = False,
) -> NewTask:
    """A task whose activity_scheduled event stands at `seq`: right after `started`, unless told."""
    options = TaskOptions(retry=Retry(max_attempts=max_attempts), queue=queue, priority=priority)
    return NewTask(command_id=command_id, seq=seq, activity=activity, options=options, leased=leased)


def an_attempt(run_id: str, command_id: int = 1, *, owner: str = OWNER, attempt: int = 1) -> Attempt:
    return Attempt(TaskKey(run_id, 1, command_id), owner, attempt)


# --- messages ---------------------------------------------------------------------------------------------------------


def a_signal(
    run_id: str,
    *,
    name: str = "fraud_review",
    payload: bytes | None = b'{"ok":true}',
    delivery_id: str | None = None,
    message_id: str | None = None,
) -> Message:
    return Message(
        message_id=message_id or uuid7(),
        run_id=run_id,
        kind=MessageKind.SIGNAL,
        name=name,
        payload=payload,
        delivery_id=delivery_id,
    )


def a_cancel(run_id: str) -> Message:
    return Message(message_id=uuid7(), run_id=run_id, kind=MessageKind.CANCEL)


def a_result(attempt: Attempt, *, payload: bytes = b'"paid"') -> Message:
    return Message(
        message_id=uuid7(),
        run_id=attempt.key.run_id,
        kind=MessageKind.ACTIVITY_COMPLETED,
        name=ACTIVITY,
        payload=payload,
        generation=attempt.key.generation,
        command_id=attempt.key.command_id,
    )


def a_finish(attempt: Attempt) -> Finish:
    return Finish(attempt, a_result(attempt))


def is_about(actual: datetime | None, expected: datetime, *, seconds: float = 10.0) -> bool:
    """Whether two times of the database agree, for what it stamps itself."""
    return actual is not None and abs(actual - expected) <= timedelta(seconds=seconds)
