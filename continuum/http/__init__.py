"""The door to HTTP; needs the extra `fastapi`.

`router()` gives a host all routes: those by which clients start, reach and read runs, and those by which the nodes of
one instance call each other. `peer_router()` gives the latter alone.

Each handler is thin: FastAPI has checked what came, an instance's verb is asked, its answer is written as bytes. `door`
is the class of our routes (bounded bodies, problems for refusals), `desk` what all handlers share (which instances, how
long a database may think, how to wait without holding anything).
"""

try:
    from continuum.http.mounting import router
    from continuum.http.peering import peer_router
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("fastapi", "starlette"):
        raise
    raise ModuleNotFoundError(
        "continuum.http needs FastAPI: pip install 'continuum-durable[fastapi]'", name=error.name
    ) from error

__all__ = ["peer_router", "router"]
