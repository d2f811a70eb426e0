"""What an activity may know and say while it runs."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import Any, Protocol

from continuum.errors import DurableValueError, NotAllowedHere


class Running(Protocol):
    """The attempt behind a context."""

    @property
    def instance(self) -> str:
        """The instance that it belongs to."""
        ...

    @property
    def context(self) -> ActivityContext:
        """What its function is told; made when it asks."""
        ...

    def beat(self, details: bytes | None) -> None:
        """Take note of a sign of life; safe from any thread."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the result any more."""
        ...

    @property
    def locks_journal(self) -> bool:
        """Whether nobody else can write to the journal before it ends."""
        ...


class ActivityContext:
    """The attempt that is running: `run_id`, `attempt` (from 1), `idempotency_key`, `instance`, `state`."""

    __slots__ = (
        "_details_max",
        "_last_heartbeat",
        "_running",
        "activity",
        "attempt",
        "idempotency_key",
        "instance",
        "run_id",
        "state",
        "workflow",
    )

    def __init__(
        self,
        running: Running,
        *,
        run_id: str,
        workflow: str,
        activity: str,
        attempt: int,
        idempotency_key: str,
        instance: str,
        state: Any,
        last_heartbeat: bytes | None,
        details_max: int,
    ) -> None:
        self.run_id = run_id
        self.workflow = workflow
        self.activity = activity
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self.instance = instance
        self.state = state
        self._running = running
        self._last_heartbeat = last_heartbeat
        self._details_max = details_max

    @property
    def last_heartbeat(self) -> Any:
        """The details of the last heartbeat of an earlier attempt, or None."""
        return None if self._last_heartbeat is None else json.loads(self._last_heartbeat)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more; a `def` activity should return soon then."""
        return self._running.is_cancelled

    def heartbeat(self, details: Any = None) -> None:
        """Say that the attempt is alive, and what the next one should know; from any thread, coalesced.

        Args:
            details: any JSON-able value of at most `details_max` bytes (16 KiB); the next attempt finds it in
                `last_heartbeat`. None leaves what was said before.

        Raises:
            DurableValueError: the details are not JSON, or too large.
        """
        if details is None:
            self._running.beat(None)
            return
        try:
            payload = json.dumps(details, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise DurableValueError(f"heartbeat details must be JSON: {error}", run_id=self.run_id) from error
        if len(payload) > self._details_max:
            raise DurableValueError(
                f"heartbeat details take {len(payload)} bytes, more than details_max={self._details_max}",
                run_id=self.run_id,
            )
        self._running.beat(payload)


current: ContextVar[Running] = ContextVar("continuum_activity")


def waits_for_itself(instance: str) -> bool:
    """Tell whether a write to this instance's journal, awaited here, would wait for the activity that awaits it."""
    running = current.get(None)
    return running is not None and running.locks_journal and running.instance == instance


def activity_context() -> ActivityContext:
    """Return the context of the activity attempt that is running.

    Raises:
        NotAllowedHere: outside of an activity.
    """
    running = current.get(None)
    if running is None:
        raise NotAllowedHere("activity_context() belongs into an activity that Continuum performs")
    return running.context
