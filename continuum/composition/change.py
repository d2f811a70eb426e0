"""The verbs about versions and change as an instance's methods; `continuum.versions` and `preflight` say what each does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from continuum.client.client import Client
from continuum.client.preflight import Preflight, Watch
from continuum.client.versions import WorkflowVersion
from continuum.definitions.workflow import Workflow


class ChangeVerbs(ABC):
    """What an instance tells of the code that its runs need."""

    @property
    @abstractmethod
    def _client(self) -> Client: ...

    async def versions(self) -> tuple[WorkflowVersion, ...]:
        """Return which versions are needed and carried; see `continuum.versions`."""
        return await self._client.versions()

    async def preflight(
        self, *, workflow: str | Workflow[..., Any] | None = None, sample: int | None = None, watch: Watch | None = None
    ) -> Preflight:
        """Replay the open runs against the code of this process; see `continuum.preflight`."""
        return await self._client.preflight(workflow=workflow, sample=sample, watch=watch)
