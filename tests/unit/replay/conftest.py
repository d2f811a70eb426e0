from collections.abc import Iterator

import pytest

from continuum.definitions.catalog import scoped_catalog
from tests.unit.replay.builders import audit, no_machine_outlives, settle


@pytest.fixture(autouse=True)
def _room_of_its_own() -> Iterator[None]:
    with scoped_catalog() as known, no_machine_outlives():
        known.add_workflow(settle)
        known.add_workflow(audit)
        yield
