"""`python -m benchmarks.telemetry_node VARIANT URL`: one process of `benchmarks.telemetry`.

It reads how many workflows to run, line by line, and answers each line with what it took; to `bytecodes` with a count. Nothing of Continuum is imported
before it is known whether its telemetry is to be there.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from types import FrameType, ModuleType
from typing import Any

from benchmarks import compiled_out

try:
    loops: ModuleType = importlib.import_module("uvloop")
except ModuleNotFoundError:  # on Windows
    loops = asyncio

WIDTH = 200
COUNTED = 200  # workflows, one after the other, whose bytecodes are counted


async def main(variant: str, url: str) -> None:
    """Run rounds until nobody asks any more."""
    if variant == "compiled out":
        compiled_out.compile_out()
    throughput: Any = importlib.import_module("benchmarks.throughput")
    measuring: Any = importlib.import_module("benchmarks.measuring")
    workflows: Any = importlib.import_module("benchmarks.workflows")
    if variant == "compiled out" and compiled_out.removed < 50:  # there are about a hundred
        raise SystemExit(f"only {compiled_out.removed} places of telemetry were found: the benchmark is out of date")
    between_rounds = _listen(variant)
    loop = asyncio.get_running_loop()
    options = {"activity_supervisor": {"max_concurrency": 2_000}}
    async with measuring.instance(url, **options):
        with throughput.calm_collector():
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                if line == "bytecodes\n":
                    print(await _bytecodes(lambda: throughput.in_flight(workflows.one_step, COUNTED, 1)), flush=True)
                    continue
                count = int(line)
                began = time.process_time()
                rate = await throughput.in_flight(workflows.one_step, count, WIDTH)
                spent = (time.process_time() - began) / count
                between_rounds()
                print(json.dumps({"per_second": rate, "cpu_seconds": spent}), flush=True)


async def _bytecodes(run: Callable[[], Awaitable[object]]) -> float:
    """Count what the interpreter does for one workflow: nearly the same however busy the machine is."""
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            count()
        return trace

    monitoring: Any = getattr(sys, "monitoring", None)  # from Python 3.12 on
    if monitoring is None:
        sys.settrace(trace)
    else:
        monitoring.use_tool_id(monitoring.PROFILER_ID, "benchmarks")
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, count)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION)
    try:
        await run()
    finally:
        if monitoring is None:
            sys.settrace(None)
        else:
            monitoring.free_tool_id(monitoring.PROFILER_ID)
    return counted / COUNTED


def _listen(variant: str) -> Any:
    """Let somebody listen; return what empties its memory between two rounds."""
    if variant == "counting handler":
        telemetry: Any = importlib.import_module("continuum.telemetry")
        counts: dict[str, int] = {}

        def count(event: Any) -> None:
            counts[event.name] = counts.get(event.name, 0) + 1

        telemetry.attach(count)
        return counts.clear
    if variant == "OpenTelemetry SDK":
        return _trace()
    return lambda: None


def _trace() -> Any:
    sdk: Any = importlib.import_module("opentelemetry.sdk.trace")
    export: Any = importlib.import_module("opentelemetry.sdk.trace.export")
    memory: Any = importlib.import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    sdk_metrics: Any = importlib.import_module("opentelemetry.sdk.metrics")
    metrics_export: Any = importlib.import_module("opentelemetry.sdk.metrics.export")
    otel: Any = importlib.import_module("continuum.otel")
    exporter = memory.InMemorySpanExporter()
    tracers = sdk.TracerProvider()
    tracers.add_span_processor(export.BatchSpanProcessor(exporter))
    meters = sdk_metrics.MeterProvider(metric_readers=[metrics_export.InMemoryMetricReader()])
    otel.setup(tracer_provider=tracers, meter_provider=meters)
    return exporter.clear


if __name__ == "__main__":
    loops.run(main(*sys.argv[1:]))
