"""`python -m benchmarks [--quick] [throughput|parked|latency|replaying|cluster …]`: measure on a server of our own, fsync on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from benchmarks import cluster, latency, parked, replaying, throughput
from benchmarks.measuring import Figure, settings_of
from continuum.embedded_postgres import Server

Measure = Callable[..., Awaitable[list[Figure]]]
BENCHMARKS: dict[str, Measure] = {
    "throughput": throughput.measure,
    "latency": latency.measure,
    "parked": parked.measure,
    "replaying": replaying.measure,
    "cluster": cluster.measure,
}


def main() -> None:
    """Run the chosen benchmarks, all by default."""
    arguments = sys.argv[1:]
    quick = "--quick" in arguments
    chosen = [name for name in arguments if name != "--quick"] or list(BENCHMARKS)
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"no benchmark is named {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    with Server(fsync=True, shared_buffers="1GB") as server:
        print("PostgreSQL:", ", ".join(f"{key} {value}" for key, value in asyncio.run(settings_of(server.url)).items()))
        for name in chosen:
            print(f"{name} …", file=sys.stderr, flush=True)
            for figure in asyncio.run(BENCHMARKS[name](server.url, quick=quick)):
                print(figure, flush=True)


main()
