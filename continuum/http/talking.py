"""`…/signals/{name}` and `…/cancel`: reach a run."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Header, Path
from pydantic_core import to_json
from starlette.responses import Response

from continuum.client.inputs import Json
from continuum.http.desk import Desk
from continuum.http.headers import Key, idempotency_key
from continuum.http.parameters import ABSENT, InstanceName, RunId
from continuum.http.shapes import RunCancel, ShortName
from continuum.http.writing import answer

CANCEL_SECONDS = 2.0  # that a cancel waits for another node to honour it

DeliveryKey = Annotated[
    Key,
    Header(
        alias="Idempotency-Key",
        description="A delivery id: a signal that was accepted under it before is a duplicate.",
        examples=["webhook-4711"],
    ),
]
SignalName = Annotated[ShortName, Path(description="The signal's name.", examples=["fraud_review"])]
PAYLOADS: Any = {
    "verdict": {"summary": "A verdict", "value": {"ok": True}},
    "nothing": {"summary": "No payload", "value": None},
}


class Talking:
    """Signals and cancels runs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def signal_run(
        self,
        instance: InstanceName,
        run_id: RunId,
        name: SignalName,
        payload: Annotated[Any, Body(openapi_examples=PAYLOADS, description="The payload: any JSON.")] = None,
        key: DeliveryKey = ABSENT,
    ) -> Response:
        """Send a run a signal.

        Signals are kept in order, per name, until the run waits for them. The body is the payload; none means `null`.
        """
        return await self.send(instance, run_id, name, payload, key)

    async def send(self, instance: str, run_id: UUID, name: str, payload: Any, key: str | None) -> Response:
        """Send a signal, and answer; `payload` is what the body's JSON says."""
        asked = self._desk.instance(instance)
        delivery_id = None if key is None else idempotency_key(key)
        async with self._desk.patience():
            status = await asked.signal(run_id, name, Json(to_json(payload)), delivery_id=delivery_id)
        return answer({"status": status}, 202)

    async def cancel_run(
        self,
        instance: InstanceName,
        run_id: RunId,
        how: Annotated[RunCancel | None, Body()] = None,
    ) -> Response:
        """Cancel a run.

        It is cancelled in the database, whatever it does: none of its code runs any more. Where its node cannot be
        reached now the cancel is recorded, and honoured before the run does anything else. With `compensate` what the
        run owes is undone first.
        """
        async with self._desk.patience(beyond=CANCEL_SECONDS):
            compensates = how is not None and how.compensate
            status = await self._desk.instance(instance).cancel(run_id, compensate=compensates)
        return answer({"status": status}, 202)
