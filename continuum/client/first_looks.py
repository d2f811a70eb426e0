"""The first look at runs that somebody begins to wait for: who is asked about together is looked up together.

A thousand callers who gather the results of a thousand runs that ended long ago cost a few statements, not a thousand.
"""

from __future__ import annotations

import asyncio

from continuum.journal.port import ReadJournal
from continuum.model.runs import Standing

LOOK_MAX = 200  # runs in one query: each may bring a result of a megabyte


class Looks:
    """Looks at all the runs that one iteration of the loop asks about."""

    def __init__(self, journal: ReadJournal) -> None:
        self._journal = journal
        self._asked: dict[str, list[asyncio.Future[Standing | None]]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    def at(self, run_id: str) -> asyncio.Future[Standing | None]:
        """Return how a run stands, soon; None: there is none."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._look)
        answer: asyncio.Future[Standing | None] = loop.create_future()
        self._asked.setdefault(run_id, []).append(answer)
        return answer

    def _look(self) -> None:
        asked, self._asked = self._asked, {}
        wanted = list(asked)
        for start in range(0, len(wanted), LOOK_MAX):
            part = {run_id: asked[run_id] for run_id in wanted[start : start + LOOK_MAX]}
            task = asyncio.get_running_loop().create_task(self._look_at(part), name="continuum.first_look")
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

    async def _look_at(self, asked: dict[str, list[asyncio.Future[Standing | None]]]) -> None:
        answers = [(run_id, answer) for run_id, waiting in asked.items() for answer in waiting]
        try:
            found = {standing.run_id: standing for standing in await self._journal.standings(list(asked))}
        except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
            for _, answer in answers:
                if not answer.done():
                    answer.set_exception(error)
            return
        for run_id, answer in answers:
            if not answer.done():
                answer.set_result(found.get(run_id))
