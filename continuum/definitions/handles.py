"""What a started run is held by."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

from continuum.model.attributes import AttributeValue
from continuum.model.policy import Duration
from continuum.model.runs import Run

R_co = TypeVar("R_co", covariant=True)


class Verbs(Protocol):
    """The verbs of an instance that a handle needs."""

    def result_of(
        self, run_id: str, workflow: Any, *, timeout: Duration | None, wait_blocked: bool
    ) -> Coroutine[Any, Any, Any]:  # the workflow's result type, which only the handle knows
        """Wait for a run's end."""
        ...

    async def signal(
        self, run_id: str, name: str, payload: object = None, /, *, delivery_id: str | None = None
    ) -> Literal["delivered", "duplicate"]:
        """Send a signal."""
        ...

    async def cancel(self, run_id: str, /, *, compensate: bool = False) -> Literal["cancelled", "requested"]:
        """Cancel."""
        ...

    async def set_attributes(self, run_id: str, attributes: Mapping[str, AttributeValue], /) -> None:
        """Change its search attributes."""
        ...

    async def get_run(self, run_id: str, /) -> Run:
        """Read the run."""
        ...


class RunHandle(Generic[R_co]):
    """A run, and what can be done with it. `existing` tells whether `start` found it already there."""

    __slots__ = ("_verbs", "_workflow", "existing", "run_id")

    def __init__(self, run_id: str, workflow: Any, verbs: Callable[[], Verbs], *, existing: bool = False) -> None:
        self.run_id = run_id
        self.existing = existing
        self._workflow = workflow
        self._verbs = verbs

    def __repr__(self) -> str:
        return f"RunHandle({self.run_id!r})"

    async def result(self, *, timeout: Duration | None = None, wait_blocked: bool = False) -> R_co:
        """Wait for the run's end and return its result; any number of callers may.

        Raises:
            RunFailed, RunCancelled: it ended otherwise.
            RunBlocked: its code must be mended first (`wait_blocked=True` waits on).
            ResultTimedOut: not within `timeout` (seconds or timedelta; None waits for ever).
            RunNotFound: there is no such run.
        """
        result: R_co = await self._verbs().result_of(
            self.run_id, self._workflow, timeout=timeout, wait_blocked=wait_blocked
        )
        return result

    async def signal(
        self, name: str, payload: object = None, /, *, delivery_id: str | None = None
    ) -> Literal["delivered", "duplicate"]:
        """Send the run a signal; see `continuum.signal`."""
        return await self._verbs().signal(self.run_id, name, payload, delivery_id=delivery_id)

    async def cancel(self, *, compensate: bool = False) -> Literal["cancelled", "requested"]:
        """Cancel the run; see `continuum.cancel`."""
        return await self._verbs().cancel(self.run_id, compensate=compensate)

    async def set_attributes(self, attributes: Mapping[str, AttributeValue], /) -> None:
        """Merge search attributes into the run's; see `continuum.set_attributes`."""
        await self._verbs().set_attributes(self.run_id, attributes)

    async def status(self) -> Run:
        """Read the run; see `continuum.get_run`."""
        return await self._verbs().get_run(self.run_id)


_resolve: Callable[[str | None], Verbs] | None = None


def resolve_verbs_with(resolve: Callable[[str | None], Verbs]) -> None:
    """Tell handles made from definitions how to find an instance; called once, where instances are known."""
    global _resolve  # noqa: PLW0603  # a floor below the instances, so it must be told
    _resolve = resolve


def verbs_of(instance: str | None) -> Callable[[], Verbs]:
    """Return a way to the verbs of an instance that need not be registered yet."""

    def find() -> Verbs:
        assert _resolve is not None, "continuum/__init__.py sets it"
        return _resolve(instance)

    return find
