"""What a started run is held by."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from continuum.errors import RunNotCommitted, RunNotFound
from continuum.model.attributes import AttributeValue
from continuum.model.policy import Duration
from continuum.model.runs import Run

R_co = TypeVar("R_co", covariant=True)


HostSession = AsyncSession | AsyncConnection | async_scoped_session[Any]  # in whose transaction a verb takes part


class Verbs(Protocol):
    """The verbs of an instance that a handle needs."""

    def result_of(
        self, run_id: str, workflow: Any, *, timeout: Duration | None, wait_blocked: bool
    ) -> Coroutine[Any, Any, Any]:  # the workflow's result type, which only the handle knows
        """Wait for a run's end."""
        ...

    async def signal(
        self,
        run_id: str,
        name: str,
        payload: object = None,
        /,
        *,
        delivery_id: str | None = None,
        session: HostSession | None = None,
    ) -> Literal["delivered", "duplicate"]:
        """Send a signal."""
        ...

    async def cancel(
        self, run_id: str, /, *, compensate: bool = False, session: HostSession | None = None
    ) -> Literal["cancelled", "requested"]:
        """Cancel."""
        ...

    async def set_attributes(self, run_id: str, attributes: Mapping[str, AttributeValue], /) -> None:
        """Change its search attributes."""
        ...

    async def get_run(self, run_id: str, /) -> Run:
        """Read the run."""
        ...


class Fate:
    """What becomes of a run that was started in a host's transaction."""

    __slots__ = ("__weakref__", "_settled", "look")

    def __init__(self) -> None:
        self.look: Callable[[], None] = (
            _look_nowhere  # settles it if the transaction is over, as it soon will be anyway
        )
        self._settled: Literal["committed", "rolled back"] | None = None

    def settle(self, *, is_there: bool) -> None:
        """Hear how the transaction ended."""
        self._settled = "committed" if is_there else "rolled back"

    @property
    def state(self) -> Literal["pending commit", "committed", "rolled back"]:
        """Where it stands."""
        if self._settled is None:
            self.look()
        return self._settled or "pending commit"


def _look_nowhere() -> None:
    """Nothing is to be seen."""


class RunHandle(Generic[R_co]):
    """A run, and what can be done with it. `existing` tells whether `start` found it already there.

    A run that was started with `session=` exists once the host's transaction commits; until then the handle is
    `pending_commit`, and what needs the run raises RunNotCommitted.
    """

    __slots__ = ("_fate", "_verbs", "_workflow", "existing", "run_id")

    def __init__(
        self,
        run_id: str,
        workflow: Any,
        verbs: Callable[[], Verbs],
        *,
        existing: bool = False,
        fate: Fate | None = None,
    ) -> None:
        self.run_id = run_id
        self.existing = existing
        self._workflow = workflow
        self._verbs = verbs
        self._fate = fate

    def __repr__(self) -> str:
        if self._fate is None or self._fate.state == "committed":
            return f"RunHandle({self.run_id!r})"
        return f"RunHandle({self.run_id!r}, {self._fate.state})"

    @property
    def pending_commit(self) -> bool:
        """Whether the host's transaction, in which the run was started, is still open."""
        return self._fate is not None and self._fate.state == "pending commit"

    def _expect_run(self, verb: str, instead: str = "") -> None:
        if self._fate is None or self._fate.state == "committed":
            return
        if self._fate.state == "rolled back":
            message = f"run {self.run_id} was never started: the transaction of its session= was rolled back"
            raise RunNotFound(message, run_id=self.run_id)
        message = f"run {self.run_id} exists once the transaction of its session= commits: commit, then {verb}{instead}"
        raise RunNotCommitted(message, run_id=self.run_id)

    async def result(self, *, timeout: Duration | None = None, wait_blocked: bool = False) -> R_co:
        """Wait for the run's end and return its result; any number of callers may.

        Raises:
            RunFailed, RunCancelled: it ended otherwise.
            RunBlocked: its code must be mended first (`wait_blocked=True` waits on).
            ResultTimedOut: not within `timeout` (seconds or timedelta; None waits for ever).
            RunNotFound: there is no such run; it was pruned, or the host rolled its start back.
            RunNotCommitted: the host's transaction, in which it was started, is still open.
        """
        self._expect_run("await its result")
        result: R_co = await self._verbs().result_of(
            self.run_id, self._workflow, timeout=timeout, wait_blocked=wait_blocked
        )
        return result

    async def signal(
        self,
        name: str,
        payload: object = None,
        /,
        *,
        delivery_id: str | None = None,
        session: HostSession | None = None,
    ) -> Literal["delivered", "duplicate"]:
        """Send the run a signal; see `continuum.signal`."""
        if session is None:
            self._expect_run("signal", " (or signal in the same transaction, with session=)")
        return await self._verbs().signal(self.run_id, name, payload, delivery_id=delivery_id, session=session)

    async def cancel(
        self, *, compensate: bool = False, session: HostSession | None = None
    ) -> Literal["cancelled", "requested"]:
        """Cancel the run; see `continuum.cancel`."""
        if session is None:
            self._expect_run("cancel", " (or roll back)")
        return await self._verbs().cancel(self.run_id, compensate=compensate, session=session)

    async def set_attributes(self, attributes: Mapping[str, AttributeValue], /) -> None:
        """Merge search attributes into the run's; see `continuum.set_attributes`."""
        self._expect_run("set its attributes", " (or start it with attributes=)")
        await self._verbs().set_attributes(self.run_id, attributes)

    async def status(self) -> Run:
        """Read the run; see `continuum.get_run`."""
        self._expect_run("ask for its status")
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
