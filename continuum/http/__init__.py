"""The door to HTTP; needs the extra `fastapi`."""

from continuum.http.peering import peer_router

__all__ = ["peer_router"]
