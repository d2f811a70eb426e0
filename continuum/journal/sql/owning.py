"""Owner rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from continuum.journal.sql.desk import Part
from continuum.journal.sql.statements import owners
from continuum.model.owners import Owner


class Owning(Part):
    """The heartbeat, and the judgement of who is dead. `heart()` has one of these on a line of its own."""

    async def register(self, owner: Owner, *, ttl_seconds: float) -> datetime:
        """Insert the owner row, committed before any lease in its name; return now."""
        (row,) = await self._desk.change(
            owners.REGISTER,
            owner=owner.owner,
            instance=owner.instance,
            node=owner.node,
            advertise_url=owner.advertise_url,
            ttl=ttl_seconds,
        )
        return self._desk.reader.moment(row.now)

    async def renew(self, owner: str, *, ttl_seconds: float) -> datetime | None:
        """Extend the row; return now, or None if it is gone: everything leased to it is lost."""
        rows = await self._desk.change(owners.RENEW, owner=owner, ttl=ttl_seconds)
        return self._desk.reader.moment(rows[0].now) if rows else None

    async def retire(self, owner: str) -> None:
        """Delete the row; what is still leased to it will be swept."""
        await self._desk.change(owners.RETIRE, owner=owner)

    async def declare_dead(self) -> Sequence[str]:
        """Delete every row whose `expires_at` has passed; return their owners."""
        return [row.owner for row in await self._desk.change(owners.DECLARE_DEAD)]

    async def owners(self) -> Sequence[Owner]:
        """Return the owners that have a row."""
        rows = await self._desk.ask(owners.LIST)
        return [Owner(row.owner, row.instance, row.node, row.advertise_url) for row in rows]
