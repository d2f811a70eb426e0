"""The elements of what `children()` returns: each starts and stops one part of an instance.

The journal is first in and last out. Before the first of the parts that hold leases goes down, the instance drains:
readiness off, no claims, executions finish their commit and give their leases back, attempts are awaited, all within
`drain_timeout`; the heartbeat goes on until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from continuum.composition.late import LateStart
from continuum.errors import ConfigurationError
from continuum.runtime.component import Component

HOLDERS = frozenset({"heartbeater", "activity_supervisor", "run_supervisor"})


class Lived(Protocol):
    """An instance, as its parts see it."""

    name: str
    late: LateStart | None  # for one that its host can do without at its start

    async def open(self) -> None:
        """Open the journal."""
        ...

    async def close(self) -> None:
        """Close it."""
        ...

    def begin_drain(self) -> None:
        """Take no more work."""
        ...

    async def drain(self) -> bool:
        """Hand over what there is."""
        ...

    @property
    def components(self) -> Mapping[str, Component] | None:
        """The components, while the journal is open."""
        ...


class JournalPart(Component):
    """Opens the journal, registers this process as an owner, closes both."""

    def __init__(self, instance: Lived) -> None:
        super().__init__(f"{instance.name}.journal")
        self.instance = instance

    async def start(self) -> None:
        """Open."""
        if self.instance.late is None:
            await self.instance.open()
        else:
            await self.instance.late.start()

    async def stop(self) -> None:
        """Close."""
        if self.instance.late is not None:
            await self.instance.late.give_up()
        await self.instance.close()


class RunningPart(Component):
    """Starts and stops one component of a running instance."""

    def __init__(self, instance: Lived, part: str) -> None:
        super().__init__(f"{instance.name}.{part}")
        self._instance = instance
        self._part = part
        self._running: Component | None = None

    async def start(self) -> None:
        """Start the component; that of an instance which is still waited for, when it is there.

        Raises:
            ConfigurationError: the instance's journal has not been entered.
        """
        late = self._instance.late
        if late is not None and late.is_waited_for:
            late.follow(self)
        else:
            await self.begin()

    async def begin(self) -> None:
        """Start the component now."""
        components = self._instance.components
        if components is None:
            raise ConfigurationError(
                f"{self.name} stands on {self._instance.name}.journal, which has not been entered: enter all elements "
                "of children() in order, or `async with children(...)`"
            )
        if self._running is None:
            running = self._running = components[self._part]
            try:
                await running.start()
            except BaseException:  # nobody stops what did not start: what there is of it ends here
                self._running = None
                await running.stop()
                raise

    async def stop(self) -> None:
        """Stop the component; the instance drains first if it holds leases."""
        if self._instance.late is not None:
            await self._instance.late.give_up()
        await self.end()

    async def end(self) -> None:
        """Stop the component now."""
        running, self._running = self._running, None
        if running is None:
            return
        try:
            if self._part in HOLDERS:
                await self._instance.drain()
        finally:  # a drain that is cancelled must not leave a heart behind that beats for nobody
            await running.stop()
