from collections.abc import Iterator

import pytest

from continuum.definitions.catalog import scoped_catalog
from tests.unit.replay.builders import no_machine_outlives


@pytest.fixture(autouse=True)
def _room_of_its_own() -> Iterator[None]:
    with scoped_catalog(), no_machine_outlives():
        yield
