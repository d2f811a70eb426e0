"""`GET {prefix}/metrics`: the page that Prometheus scrapes, where `prometheus_client` is installed.

What is counted is counted from when the router was made. The gauges are read when somebody scrapes; the database is asked
once for all who do within ten seconds.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from fastapi import APIRouter, params
from starlette.requests import Request
from starlette.responses import Response

from continuum.composition.gauges import gauges
from continuum.errors import ConfigurationError
from continuum.runtime.threads import DaemonThreads
from continuum.telemetry.metrics import Gauge


class Exporter(Protocol):
    """What `continuum.http.scraping` has."""

    def listen(self) -> None:
        """Hear of events."""
        ...

    def page(
        self, accept: str, gauges: Sequence[Gauge], served: Collection[str] | None
    ) -> Callable[[], tuple[bytes, str]]:
        """Return what writes a page, and says its media type."""
        ...


_writer = DaemonThreads(1, name="continuum-metrics")  # one for all routers, made at the first scrape


def add_metrics_route(
    api: APIRouter,
    *,
    instances: Collection[str] | None,
    dependencies: Sequence[params.Depends],
    wanted: bool | None,
) -> None:
    """Add the route to a router; where it is not asked for either way (None), if `prometheus_client` is installed.

    Raises:
        ConfigurationError: it is wanted and cannot be.
    """
    exporter = None if wanted is False else _exporter()
    if exporter is None:
        if wanted:
            raise ConfigurationError(
                "metrics=True needs prometheus_client: pip install 'continuum-durable[prometheus]'"
            )
        return
    exporter.listen()
    served = None if instances is None else frozenset(instances)

    async def scrape(request: Request) -> Response:
        """Return the metrics of the instances that are served here."""
        write = exporter.page(request.headers.get("accept", ""), await gauges(served), served)
        page, media_type = await asyncio.get_running_loop().run_in_executor(_writer, write)
        return Response(page, headers={"Content-Type": media_type})

    # Not in the schema: it is for scrapers, and what an application offers its clients must not depend on an extra.
    api.add_api_route(
        "/metrics", scrape, methods=["GET"], dependencies=dependencies, response_model=None, include_in_schema=False
    )


def _exporter() -> Exporter | None:
    try:
        module = importlib.import_module("continuum.http.scraping")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        return None
    exporter: Exporter = module.exporter
    return exporter
