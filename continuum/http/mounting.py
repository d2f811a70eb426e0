"""`router()`: the routes of one mount."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fastapi import APIRouter, params

from continuum.http.describing import (
    AWAITED,
    BATCH_STARTED,
    CANCELLED,
    EVENTS,
    LISTED,
    LIVE,
    PROBES,
    READ,
    READS,
    READY,
    SIGNALLED,
    STARTED,
    WRITES,
    Adding,
    operation_id,
)
from continuum.http.desk import WAIT_MAX_SECONDS, Desk
from continuum.http.door import BODY_MAX, door
from continuum.http.following import Following
from continuum.http.health import Health
from continuum.http.metrics import add_metrics_route
from continuum.http.peering import Secret, add_peer_routes
from continuum.http.reading import Reading
from continuum.http.starting import Starting
from continuum.http.talking import Talking
from continuum.http.typed import add_typed_routes


def router(
    prefix: str = "/continuum",
    *,
    instances: Collection[str] | None = None,
    dependencies: Sequence[params.Depends] = (),
    peer_secret: Secret = None,
    insecure_peers: bool = False,
    typed: bool = False,
    tags: Sequence[str] = ("continuum",),
    include_in_schema: bool = True,
    wait_max: float = WAIT_MAX_SECONDS,
    body_max: int = BODY_MAX,
    metrics: bool | None = None,
) -> APIRouter:
    """Return the routes by which clients start, reach and read runs, and peers call each other.

    Args:
        prefix: where they stand; an `advertise_url` ends with it.
        instances: the names served; None: all that are registered, asked at each request.
        dependencies: `Depends(...)` of the host's, before every route but those of peers.
        peer_secret: what peers sign with; see `peer_router`.
        insecure_peers: believe unsigned peers where there is no secret.
        typed: add a path per workflow, and per signal that one declares, with their models; for those that have been
            imported before this call.
        tags, include_in_schema: as everywhere in FastAPI.
        wait_max: seconds that a client may wait in one request, at most 30.
        body_max: bytes of a body; `payload_max` bounds what is in it.
        metrics: serve `GET {prefix}/metrics` to Prometheus; None: if `prometheus_client` is installed.

    Raises:
        ConfigurationError: an argument cannot be.
    """
    api = APIRouter(
        prefix=prefix, tags=list(tags), route_class=door(body_max), generate_unique_id_function=operation_id
    )
    desk = Desk(instances, wait_max=wait_max)
    starting, talking = Starting(desk), Talking(desk)
    reading, following, health = Reading(desk), Following(desk), Health(desk)

    add = Adding(api, dependencies, include_in_schema=include_in_schema)
    add("POST", "/runs", starting.start_run, STARTED, WRITES)
    add("POST", "/batches", starting.start_batch, BATCH_STARTED, WRITES)
    add("GET", "/runs", reading.list_runs, LISTED, READS)
    add("GET", "/runs/{run_id}", reading.get_run, READ, READS)
    add("GET", "/runs/{run_id}/await", reading.await_run, AWAITED, READS)
    add("GET", "/runs/{run_id}/events", following.list_events, EVENTS, READS)
    add("POST", "/runs/{run_id}/signals/{name:path}", talking.signal_run, SIGNALLED, WRITES)
    add("POST", "/runs/{run_id}/cancel", talking.cancel_run, CANCELLED, WRITES)
    add("GET", "/health/live", health.is_live, LIVE, PROBES)
    add("GET", "/health/ready", health.is_ready, READY, PROBES)
    if typed:
        add_typed_routes(add, starting, talking)  # after the others, whose paths are shorter
    add.refuse_other_methods()
    add_metrics_route(api, instances=instances, dependencies=dependencies, wanted=metrics)
    add_peer_routes(api, instances=instances, secret=peer_secret, insecure=insecure_peers)
    return api
