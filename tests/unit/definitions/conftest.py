from collections.abc import Iterator

import pytest

from continuum.definitions.catalog import scoped_catalog


@pytest.fixture(autouse=True)
def _catalog_of_its_own() -> Iterator[None]:
    with scoped_catalog():
        yield
