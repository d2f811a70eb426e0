"""`python -m tools.print_telemetry FILE`: write the reference of events from its one source in code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from continuum.telemetry import EVENTS, MEASUREMENTS, METADATA, Described
from continuum.telemetry.emitting import SLOW_SECONDS

HEAD = """# Telemetry

`continuum.telemetry.attach(handler, events=None)` calls `handler` with every `TelemetryEvent(name, measurements, metadata)`,
or with those that are named in `events`: names, and patterns such as `run.*` or `*.failed`. A name that no event has is an
error that says which ones are near. `detach(handler)` ends it.

An event is said once, by whoever brought the transition about and after the commit that made it durable; that a caller, a
sweep, a parent or a schedule was behind it makes no difference. What concerns one process (an attempt, a loop, a call) is
said when it happens there. A process that dies after a commit and before it could speak has not spoken: events are for
watching, the history is the record.

**Handlers** are called at once, one after the other, on the thread that emits: mostly the instance's event loop, for
`loop.blocked` the heartbeat's thread. They must be quick: a call that takes longer than {slow:.0f} ms is warned of, and again when
it is twice as slow. One that raises is detached after a warning, and what it raised goes no further; the others hear
`handler.detached`. An event that nobody listens to costs one look-up.

`measurements` are numbers, with their unit in the key where they have one. `metadata` always holds `instance` and `node`.
Keys in *italics* are there where they are known.

| event | when | measurements | metadata |
| --- | --- | --- | --- |
"""


def reference() -> str:
    """Return the page."""
    rows = "".join(_row(name, described) for name, described in EVENTS.items())
    return (
        HEAD.format(slow=SLOW_SECONDS * 1000)
        + rows
        + _glossary("Measurements", MEASUREMENTS)
        + _glossary("Metadata", METADATA)
    )


def _row(name: str, described: Described) -> str:
    measurements = _keys(described.measurements, described.measurements_if_known)
    metadata = _keys(described.metadata, described.metadata_if_known)
    return f"| `{name}` | {described.when} | {measurements} | {metadata} |\n"


def _keys(always: tuple[str, ...], if_known: tuple[str, ...]) -> str:
    return ", ".join([f"`{key}`" for key in always] + [f"*{key}*" for key in if_known])


def _glossary(title: str, words: Mapping[str, str]) -> str:
    rows = "".join(f"| `{key}` | {meaning} |\n" for key, meaning in words.items())
    return f"\n## {title}\n\n| key | what it is |\n| --- | --- |\n{rows}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
