"""`python -m benchmarks [--quick] [--asyncio] [throughput|parked|latency|replaying|composing|cluster|http|telemetry …]`: on a server of our own.

On uvloop, as uvicorn runs its hosts, unless it is missing or `--asyncio` asks for the loop of the standard library.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType

from benchmarks import cluster, composing, http, latency, parked, replaying, telemetry, throughput
from benchmarks.measuring import Figure, settings_of
from continuum.embedded_postgres import Server

try:
    import uvloop
except ModuleNotFoundError:  # on Windows
    uvloop = None  # type: ignore[assignment]

Measure = Callable[..., Awaitable[list[Figure]]]
BENCHMARKS: dict[str, Measure] = {
    "throughput": throughput.measure,
    "latency": latency.measure,
    "parked": parked.measure,
    "replaying": replaying.measure,
    "composing": composing.measure,
    "cluster": cluster.measure,
    "http": http.measure,
    "telemetry": telemetry.measure,
}
FLAGS = ("--quick", "--asyncio")


def main() -> None:
    """Run the chosen benchmarks, all by default."""
    arguments = sys.argv[1:]
    chosen = [name for name in arguments if name not in FLAGS] or list(BENCHMARKS)
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"no benchmark is named {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}; flags: {' '.join(FLAGS)}")
    loop: ModuleType = asyncio if "--asyncio" in arguments or uvloop is None else uvloop
    with Server(fsync=True, shared_buffers="1GB") as server:
        print("PostgreSQL:", ", ".join(f"{key} {value}" for key, value in asyncio.run(settings_of(server.url)).items()))
        print(f"Python {platform.python_version()} on {loop.__name__}, {os.cpu_count()} cores for both")
        for name in chosen:
            print(f"{name} …", file=sys.stderr, flush=True)
            for figure in loop.run(BENCHMARKS[name](server.url, quick="--quick" in arguments)):
                print(figure, flush=True)


main()
