"""`python -m tools.print_telemetry FILE`: write the reference of events from its one source in code."""

from __future__ import annotations

import sys
from pathlib import Path

from continuum.telemetry import EVENTS

HEAD = """# Telemetry

`continuum.telemetry.attach(handler, events=None)` calls `handler` with every `TelemetryEvent(name, measurements, metadata)`,
or with those named in `events`; `detach(handler)` ends that. The handler runs at once, on the loop that emits, after the
commit that the event speaks of: it must be quick. One that raises is reported once per event name and stays attached; it
never decides what becomes of a run.

`measurements` are numbers with their unit in the key (`delay_seconds`). `metadata` always holds `instance` and `node`.
Events of runs also hold `run_id`, `workflow`, `version` and `namespace`; those of activities `run_id`, `workflow`,
`activity`, `command_id`, `attempt` and `queue`.

| event | what it says |
| --- | --- |
"""


def reference() -> str:
    """Return the page."""
    return HEAD + "".join(f"| `{name}` | {meaning} |\n" for name, meaning in EVENTS.items())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
