"""Finds code by name and version.

Made again from the same module and qualname, a definition replaces the older one (a reload, a notebook cell, a repeated
test). Another claim to its name and version is refused. There is one catalog per process; a test can scope its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from continuum.errors import DuplicateDefinition, WorkflowNotFound


class Definition(Protocol):
    """What the catalog knows of a definition."""

    @property
    def name(self) -> str:
        """The durable name."""
        ...

    @property
    def origin(self) -> str:
        """`module.qualname` of the function."""
        ...


class WorkflowDefinition(Definition, Protocol):
    """A workflow, as the catalog knows it."""

    @property
    def version(self) -> int:
        """Which of its versions."""
        ...

    @property
    def aliases(self) -> Sequence[str]:
        """Names that it had before."""
        ...


class Catalog:
    """Workflows by (name, version), activities by name."""

    def __init__(self) -> None:
        self._workflows: dict[tuple[str, int], Any] = {}
        self._newest: dict[str, int] = {}
        self._activities: dict[str, Any] = {}
        self.revision = 0  # grows with every definition: code that is made again may be other code

    def add_workflow(self, workflow: WorkflowDefinition) -> None:
        """Register a workflow under its name and aliases.

        Raises:
            DuplicateDefinition: another function claims the name and version.
        """
        keys = [(name, workflow.version) for name in (workflow.name, *workflow.aliases)]
        for name, version in keys:
            _refuse_other(self._workflows.get((name, version)), workflow, f"workflow {name!r} version {version}")
        for name, version in keys:
            self._workflows[name, version] = workflow
            self._newest[name] = max(version, self._newest.get(name, version))
        self.revision += 1

    def add_activity(self, activity: Definition) -> None:
        """Register an activity.

        Raises:
            DuplicateDefinition: another function claims the name.
        """
        _refuse_other(self._activities.get(activity.name), activity, f"activity {activity.name!r}")
        self._activities[activity.name] = activity
        self.revision += 1

    def workflow(self, name: str, version: int | None = None) -> Any:
        """Return a workflow, the newest version by default.

        Raises:
            WorkflowNotFound: nothing of this name and version is registered; import its module.
        """
        if version is None:
            version = self._newest.get(name)
        found = self._workflows.get((name, version)) if version is not None else None
        if found is None:
            which = f"{name!r}" if version is None else f"{name!r} version {version}"
            known = ", ".join(sorted({known for known, _ in self._workflows})) or "none"
            raise WorkflowNotFound(
                f"no workflow {which} is registered in this process; import its module. Known: {known}"
            )
        return found

    def find(self, name: str, version: int) -> Any | None:
        """Return a version of a workflow, or None if this process does not have it."""
        return self._workflows.get((name, version))

    def activity(self, name: str) -> Any | None:
        """Return an activity, or None if this process does not have it."""
        return self._activities.get(name)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Let what functions define inside be forgotten afterwards, also by instances that look here.

        Definitions of modules that were imported meanwhile stay: nobody will execute those again.
        """
        workflows, activities = dict(self._workflows), dict(self._activities)
        try:
            yield
        finally:
            _put_back(self._workflows, workflows)
            _put_back(self._activities, activities)
            self._newest.clear()
            for name, version in self._workflows:
                self._newest[name] = max(version, self._newest.get(name, version))

    def copy(self) -> Catalog:
        """Return another catalog of the same definitions."""
        other = Catalog()
        other._workflows.update(self._workflows)
        other._newest.update(self._newest)
        other._activities.update(self._activities)
        return other

    @property
    def workflows(self) -> tuple[tuple[str, int], ...]:
        """Every (name, version) that can run here, aliases included."""
        return tuple(sorted(self._workflows))

    @property
    def activities(self) -> tuple[str, ...]:
        """Every activity that can run here."""
        return tuple(sorted(self._activities))

    @property
    def declares_signals(self) -> bool:
        """Whether any workflow says which signals it takes."""
        return any(workflow.signals is not None for workflow in self._workflows.values())


def _refuse_other(known: Definition | None, new: Definition, what: str) -> None:
    if known is not None and known.origin != new.origin:
        raise DuplicateDefinition(
            f"{what} is defined by {known.origin} and again by {new.origin}; give one another name"
        )


def _put_back(known: dict[Any, Any], before: dict[Any, Any]) -> None:
    stays = {key: one for key, one in known.items() if "<locals>" not in one.origin}
    known.clear()
    known.update(stays | before)


_catalog = Catalog()


def catalog() -> Catalog:
    """Return the process's catalog."""
    return _catalog


@contextmanager
def scoped_catalog() -> Iterator[Catalog]:
    """Let definitions made inside be forgotten afterwards; what was there before stays visible."""
    global _catalog  # noqa: PLW0603  # the one per process, swapped for a test
    outer, _catalog = _catalog, _catalog.copy()
    try:
        yield _catalog
    finally:
        _catalog = outer
