"""What can be observed: one event per transition of a run, handed to whoever listens.

def count(event: continuum.telemetry.TelemetryEvent) -> None: ...
continuum.telemetry.attach(count, events=["run.completed", "activity.*"])
"""

from continuum.telemetry.emitting import Emitter, Handler, TelemetryEvent, attach, detach, heard
from continuum.telemetry.events import EVENTS, MEASUREMENTS, METADATA, Described

__all__ = [
    "EVENTS", "MEASUREMENTS", "METADATA", "Described", "Emitter", "Handler", "TelemetryEvent", "attach", "detach",
    "heard",
]  # fmt: skip
