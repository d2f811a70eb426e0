"""What can be observed: one event per transition of a run, handed to whoever listens.

def count(event: continuum.telemetry.TelemetryEvent) -> None: ...
continuum.telemetry.attach(count, events=["run.completed"])
"""

from continuum.telemetry.emitting import Emitter, Handler, TelemetryEvent, attach, detach
from continuum.telemetry.events import EVENTS

__all__ = ["EVENTS", "Emitter", "Handler", "TelemetryEvent", "attach", "detach"]
