"""Every event that is emitted is documented here, and carries its instance."""

import re
from pathlib import Path

from continuum.telemetry import EVENTS, Emitter, TelemetryEvent, attach, detach
from tools.print_telemetry import reference

PACKAGE = Path(__file__).resolve().parents[2] / "continuum"
EMITS = re.compile(
    r"""(?:\bemit|\bobserve|_emit)\(\s*f?["']([a-z_.{}]+)["']|partial\(self\._node\.emit, ["']([a-z_.]+)["']"""
)

ENDINGS = ("completed", "failed", "cancelled", "blocked")  # of `f"run.{ending.state}"`


def emitted() -> set[str]:
    """Return every name in the code that is handed to an emitter."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name == "emitting.py":
            continue
        for match in EMITS.finditer(path.read_text()):
            name = match.group(1) or match.group(2)
            found.update([f"run.{ending}" for ending in ENDINGS] if "{" in name else [name])
    return found


def test_every_emitted_event_is_documented_and_every_documented_one_is_emitted() -> None:
    assert emitted() == set(EVENTS)


def test_the_telemetry_reference_is_up_to_date() -> None:
    page = PACKAGE.parent / "docs" / "telemetry.md"
    assert page.read_text() == reference(), "run: python -m tools.print_telemetry docs/telemetry.md"


def test_names_are_dotted_and_what_they_say_is_said() -> None:
    for name, meaning in EVENTS.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name), name
        assert meaning


def test_every_event_carries_its_instance() -> None:
    heard: list[TelemetryEvent] = []
    attach(heard.append)
    try:
        Emitter(instance="orders", node="n")("run.started", {"n": 1}, run_id="r")
    finally:
        detach(heard.append)
    assert heard == [TelemetryEvent("run.started", {"n": 1}, {"instance": "orders", "node": "n", "run_id": "r"})]
    makers = [path for path in PACKAGE.rglob("*.py") if "TelemetryEvent(" in path.read_text()]
    assert [path.name for path in makers] == ["emitting.py"]  # so there is no event without
