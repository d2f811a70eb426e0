"""A book is counted page by page, each by a child of its own; torn pages stop nobody."""

import continuum
from continuum.testing import environment
from examples.fan_out import count_book

INTACT = [page for page in range(30) if page % 10 != 7]


async def test_every_page_is_counted_and_torn_ones_are_told() -> None:
    async with environment(paranoid=True):
        run = await continuum.start(count_book, 30)
        assert await run.result() == {"words": sum(page * 3 for page in INTACT), "torn": 3}
