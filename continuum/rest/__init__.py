"""The verbs over REST, for a process that has no instance of its own: needs httpx only (the extra `rest`).

    async with continuum.rest.Client("http://orders:8000/continuum", instance="orders") as client:
        run = await client.start(fulfil, order, idempotency_key=order.id)   # or start("orders.fulfil", {"order": ...})
        receipt = await run.result(timeout=60)

Same names, same values, same errors as in process. What a request cannot carry is not there: `session=`, and the
traceback of a failed run.
"""

from continuum.errors import RequestFailed
from continuum.rest.client import Client

__all__ = ["Client", "RequestFailed"]
