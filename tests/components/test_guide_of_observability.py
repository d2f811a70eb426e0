"""What the guide says of events and logs is so; what it says of traces and metrics, `tests/otel` looks at."""

import logging
import re
import sys
import types
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import continuum
from continuum import telemetry
from continuum.definitions.catalog import scoped_catalog
from continuum.telemetry import EVENTS, emitting

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "observability.md").read_text()
MINE = GUIDE[GUIDE.index("## Events") : GUIDE.index("## Traces")]


@pytest.fixture
def guide() -> Iterator[Any]:
    """A module made of the Python blocks, in order; afterwards nobody listens, and logging is as it was."""
    module = types.ModuleType("guide_of_observability")
    sys.modules[module.__name__] = module
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with scoped_catalog():
            for number, block in enumerate(re.findall(r"```python\n(.*?)```", MINE, re.DOTALL)):
                exec(compile(block, f"observability.md block {number}", "exec"), module.__dict__)
            yield module
    finally:
        root.handlers[:], root.level = handlers, level
        telemetry.detach(module.count)
        telemetry.detach(module.waiting.put)
        del sys.modules[module.__name__]


async def test_what_is_shown_of_events_and_logs_happens(guide: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines = capsys.readouterr
    root = logging.getLogger()
    (stderr,) = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    stderr.setStream(sys.stderr)
    async with continuum.application():
        run = await continuum.start(guide.ship, "o-17")
        assert await run.result(timeout=20) == "o-17"
    said = lines().err.splitlines()
    assert said == [
        f"INFO shop [{run.run_id} -/-] shipping o-17",
        f"INFO continuum.workflow [{run.run_id} -/-] order taken",
        f"INFO shop [{run.run_id} guide.pack/1] packing o-17",
    ]
    assert guide.ended == {("guide.ship", "run.completed"): 1}
    names = [guide.waiting.get_nowait().name for _ in range(guide.waiting.qsize())]
    assert names == ["lease.acquired", "activity.scheduled", "activity.started", "activity.completed"]


def test_the_guide_names_events_that_there_are() -> None:
    kinds = {name.partition(".")[0] for name in EVENTS}
    named = [name for name in re.findall(r"`([a-z_]+\.[a-z_*]+)`", MINE) if name.partition(".")[0] in kinds]
    assert len(named) > 20
    assert [name for name in named if not any(fnmatchcase(event, name) for event in EVENTS)] == []
    assert f"**{emitting.SLOW_SECONDS * 1000:.0f} ms**" in MINE
