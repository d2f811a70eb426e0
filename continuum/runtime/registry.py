"""run id → the execution that lives here. A hint: the lease in the database decides who may write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

E = TypeVar("E")


class Registry(Generic[E]):
    """The executions of this process, oldest first."""

    def __init__(self) -> None:
        self._executions: dict[str, E] = {}

    def __len__(self) -> int:
        return len(self._executions)

    def __iter__(self) -> Iterator[E]:
        return iter(tuple(self._executions.values()))

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._executions

    def get(self, run_id: str) -> E | None:
        """Return the execution of a run, if it lives here."""
        return self._executions.get(run_id)

    def add(self, run_id: str, execution: E) -> None:
        """Enter an execution."""
        self._executions[run_id] = execution

    def remove(self, run_id: str, execution: E) -> None:
        """Strike an execution out, unless another one has taken its place."""
        if self._executions.get(run_id) is execution:
            del self._executions[run_id]

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs that live here."""
        return tuple(self._executions)
