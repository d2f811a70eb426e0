"""What `children()` returns: the components of an instance in start order, as a list that can be entered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar, overload

from continuum.composition.instance import Instance
from continuum.composition.options import PARTS
from continuum.composition.parts import JournalPart, Lived, RunningPart
from continuum.runtime.component import Component

T = TypeVar("T")


class Children(list[Component]):
    """The components of one or more instances: a list, and an async context manager that enters all of it in order."""

    instance: Instance | None = None

    @overload
    def __add__(self, other: list[Component], /) -> Children: ...
    @overload
    def __add__(self, other: list[T], /) -> list[Component | T]: ...
    def __add__(self, other: list[T], /) -> list[Component | T] | Children:
        """Return both; of two `Children`, again a `Children`."""
        joined = [*self, *other]
        return Children(joined) if isinstance(other, Children) else joined

    async def start(self) -> None:
        """Start every component in order; what has started is stopped again if one fails."""
        started: list[Component] = []
        try:
            for component in self:
                await component.start()
                started.append(component)
        except BaseException as error:
            for trouble in await _stop_all(started):
                error.add_note(f"and while what had started was stopped again: {trouble!r}")
            raise

    async def stop(self) -> None:
        """Stop every component, last in first out; the first error is raised after all have been stopped."""
        for trouble in await _stop_all(self):
            raise trouble

    def forget(self) -> None:
        """Take the instance's name back; it must be stopped."""
        if self.instance is not None:
            self.instance.forget()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _stop_all(components: Sequence[Component]) -> list[BaseException]:
    """Stop every component, last in first out, whatever goes wrong with one; return what did."""
    errors: list[BaseException] = []
    for component in reversed(components):
        try:
            await component.stop()
        except BaseException as error:  # noqa: BLE001  # the others must be stopped all the same; the caller raises it
            errors.append(error)
    return errors


def instances_of(components: Iterable[Component | Children]) -> tuple[Lived, ...]:
    """Return the instances whose journals are among these components."""
    flat = (part for one in components for part in (one if isinstance(one, Children) else [one]))
    return tuple(part.instance for part in flat if isinstance(part, JournalPart))


def children_of(instance: Instance) -> Children:
    """Return the components of an instance that are on."""
    made = Children([JournalPart(instance)])
    made.extend(RunningPart(instance, part.name) for part in PARTS if instance.settings.on(part.name))
    made.instance = instance
    return made
