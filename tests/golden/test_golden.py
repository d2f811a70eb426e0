"""Golden histories: what runs have written, today's code goes on from; and what today's code writes, they say.

A red test here means that open runs would be blocked by this change. If that is meant, `tests.golden.record` says how to
record them again.
"""

import re
from pathlib import Path

import pytest

from continuum.definitions.catalog import catalog
from continuum.testing import assert_replays, dump_history, load_history
from tests.golden.features import FEATURES, Feature
from tests.golden.record import HISTORIES, file_of

FILES = sorted(HISTORIES.glob("*.json"))
BY_NAME = {feature.name: feature for feature in FEATURES}


def feature_of(path: Path) -> Feature:
    """Return the feature that a file belongs to: `signals.json`, `signals.0.1.json` and `signals-2.json` are signals."""
    return BY_NAME[re.split(r"[.-]", path.name)[0]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_history_comes_to_what_it_came_to(path: Path) -> None:
    feature, history = feature_of(path), load_history(path)
    flow = catalog().workflow(history.run.workflow, history.run.version)
    is_last = not (HISTORIES / f"{feature.name}-{history.run.generation + 1}.json").exists()
    assert assert_replays(flow, history).state == (feature.state if is_last else "continued")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_beginning_of_a_golden_history_replays(path: Path) -> None:
    """P53: also those that end in the middle of a wait."""
    history = load_history(path)
    flow = catalog().workflow(history.run.workflow, history.run.version)
    for event in history:
        assert_replays(flow, history.upto(event.seq))


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
async def test_todays_code_writes_the_golden_history(feature: Feature) -> None:
    for history in await feature.record():
        path = file_of(feature, history)
        assert path.exists(), f"record it: python -m tests.golden.record {feature.name}"
        assert dump_history(history) == path.read_text(), f"{path.name} differs: see tests/golden/record.py"


@pytest.mark.continuum_paranoid
@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
async def test_every_feature_replays_in_other_processes_after_every_turn(feature: Feature) -> None:
    """P98: in every terminal form, those that continue as new included."""
    assert await feature.record()


def test_every_file_belongs_to_a_feature() -> None:
    assert {feature_of(path).name for path in FILES} == set(BY_NAME)
