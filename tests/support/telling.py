"""Whether a telemetry event is as its row of the table says."""

import math
from collections.abc import Iterator

from continuum.telemetry import EVENTS, TelemetryEvent


def complaints(event: TelemetryEvent) -> Iterator[str]:
    """Yield what an event carries and its row does not say, or the other way round."""
    row = EVENTS.get(event.name)
    if row is None:
        yield "is not documented"
        return
    numbers, words = set(event.measurements), set(event.metadata) - {"instance", "node"}
    for missing in (set(row.measurements) - numbers) | (set(row.metadata) - words):
        yield f"has no {missing}"
    for new in numbers - {*row.measurements, *row.measurements_if_known}:
        yield f"has an undocumented measurement {new}"
    for new in words - {*row.metadata, *row.metadata_if_known}:
        yield f"has an undocumented key {new}"
    if not {"instance", "node"} <= set(event.metadata):
        yield "does not say whose it is"
    for key, number in event.measurements.items():
        if isinstance(number, bool) or not math.isfinite(number):
            yield f"measures {key}={number!r}"
    for key, word in event.metadata.items():
        if not isinstance(word, str | int | tuple):
            yield f"says {key}={word!r}"
