"""How much there is: what dashboards ask."""

from __future__ import annotations

from continuum.journal.sql.desk import Part
from continuum.journal.sql.statements.census import CENSUS
from continuum.model.census import Census, QueueDepth, RunCount
from continuum.model.states import RunState


class Counting(Part):
    """The one question."""

    async def census(self, *, limit: int) -> Census:
        """Count open runs and free tasks; see `continuum.journal.port`."""
        rows, moment = await self._desk.ask(CENSUS, most=limit), self._desk.reader.moment
        now = next(moment(row.since) for row in rows if row.what == "now")
        runs = tuple(sorted(RunCount(RunState(row.name), row.detail, row.n) for row in rows if row.what == "runs"))
        delayed = {row.name: row.n for row in rows if row.what == "delayed"}
        due = {row.name: (row.n, (now - moment(row.since)).total_seconds()) for row in rows if row.what == "due"}
        queues = (
            QueueDepth(queue, due.get(queue, (0, 0.0))[0], delayed.get(queue, 0), due.get(queue, (0, 0.0))[1])
            for queue in sorted({*due, *delayed})
        )
        return Census(runs, tuple(queues))
