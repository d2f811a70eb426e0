"""`health/live` and `health/ready`, for whoever probes one instance.

A host that has probes of its own folds `continuum.readiness()` into them. Liveness never asks the database: a process
that is restarted because Postgres is away comes back to a Postgres that is away.
"""

from __future__ import annotations

from starlette.responses import Response

from continuum.errors import ContinuumError
from continuum.http.desk import Desk
from continuum.http.parameters import InstanceName
from continuum.http.problems import RETRY_SECONDS, Refusal
from continuum.http.writing import answer


class Health:
    """Answers probes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def is_live(self, instance: InstanceName) -> Response:
        """Tell whether the process answers; the database is not asked."""
        return answer({"status": "live", "instance": self._desk.instance(instance).name})

    async def is_ready(self, instance: InstanceName) -> Response:
        """Tell whether the instance takes work: it runs, does not drain, and its database answers."""
        asked = self._desk.instance(instance)
        readiness = asked.readiness()
        state, details = readiness.state, list(readiness.details)
        if state == "ready":
            try:
                async with self._desk.patience():
                    await asked.wire.ping()
            except (ContinuumError, Refusal) as error:
                state, details = "degraded", [str(error)]
        body = {"state": state, "instance": asked.name, "details": details}
        return answer(body) if state == "ready" else answer(body, 503, {"Retry-After": str(RETRY_SECONDS)})
