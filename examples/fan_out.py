"""A hundred children, counted by their parent: `python examples/fan_out.py`.

The parent's one commit starts all of them; each is a run of its own, wherever there is room. In memory by default; set
CONTINUUM_DATABASE_URL for a migrated database, and start the same program twice to see two nodes share the work.
"""

import asyncio

import continuum
from continuum import ChildFailed, activity, workflow


@activity
def words_in(page: int) -> int:
    if page % 10 == 7:
        raise ValueError(f"page {page} is torn")
    return page * 3


@workflow
async def count_page(page: int) -> int:
    return await words_in.options(retry=continuum.Retry(max_attempts=1))(page)


@workflow
async def count_book(pages: int) -> dict[str, int]:
    children = [await continuum.start_child(count_page, page, id=f"page-{page}") for page in range(pages)]
    words, torn = 0, 0
    for child in children:
        try:
            words += await child
        except ChildFailed:
            torn += 1
    return {"words": words, "torn": torn}


async def main(pages: int = 100) -> dict[str, int]:
    async with continuum.application():
        run = await continuum.start(count_book, pages)
        counted = await run.result(timeout=60)
        print(f"{pages} pages: {counted}")
        return counted


if __name__ == "__main__":
    asyncio.run(main())
