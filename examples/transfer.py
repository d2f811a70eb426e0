"""Transfers between accounts, each booked exactly once: `python examples/transfer.py`.

The two updates, the line in the books and the end of the activity are one transaction, so neither a crash nor a retry
can book half of a transfer, or one twice. On the file bank.db by default; set CONTINUUM_DATABASE_URL for another database.
Kill it whenever you like and start it again: what was asked for is booked, and the books balance.
"""

import asyncio
import os
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import continuum
from continuum import ActivityError, ActivityFailed, activity, activity_context, workflow

OPENING = 10_000


class Base(DeclarativeBase):
    """The bank's own tables."""


class Account(Base):
    """An account."""

    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(primary_key=True)
    cents: Mapped[int]


class Booking(Base):
    """A line in the books. No unique key: that a transfer has one line is the transaction's doing."""

    __tablename__ = "bookings"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str]
    debit: Mapped[str]
    credit: Mapped[str]
    cents: Mapped[int]


@activity(transactional=True, isolation_level="REPEATABLE READ")
async def transfer(session: AsyncSession, debit: str, credit: str, cents: int) -> int:
    """Book a transfer; return what is left. A transfer that collides with another one begins anew."""
    payer = await session.get_one(Account, debit)
    if payer.cents < cents:
        raise ActivityError("not enough", details={"has": payer.cents}, retryable=False)
    payer.cents -= cents
    await session.execute(update(Account).where(Account.name == credit).values(cents=Account.cents + cents))
    session.add(Booking(run_id=activity_context().run_id, debit=debit, credit=credit, cents=cents))
    return payer.cents


@workflow(name="bank.pay")
async def pay(debit: str, credit: str, cents: int) -> str:
    """Pay, if there is enough."""
    try:
        left = await transfer(debit, credit, cents)
    except ActivityFailed as refused:
        return f"{debit} has only {refused.details['has']}"
    return f"{debit} has {left} left"


async def open_bank(engine: AsyncEngine) -> None:
    """Make the tables and two accounts, unless they are there."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session, session.begin():
        for name in ("alice", "bob"):
            await session.merge(Account(name=name, cents=OPENING))
        await session.execute(delete(Booking))


async def main() -> dict[str, Any]:
    """Send money to and fro, and look at the books."""
    engine = create_async_engine(os.environ.get("CONTINUUM_DATABASE_URL", "sqlite+aiosqlite:///bank.db"))
    await open_bank(engine)
    async with continuum.application(engine, migrations="upgrade"):
        wanted = [("alice", "bob", 10 + n) if n % 2 else ("bob", "alice", 7) for n in range(20)]
        runs = await continuum.start_many([pay.bound(*one) for one in wanted])
        too_much = await continuum.start(pay, "alice", "bob", 10 * OPENING)
        for run in runs:
            await run.result(timeout=60)
        refused = await too_much.result(timeout=60)
    async with AsyncSession(engine) as session:
        balances = {row.name: row.cents for row in await session.execute(select(Account.name, Account.cents))}
        booked = (await session.execute(select(func.count()).select_from(Booking))).scalar_one()
    await engine.dispose()
    return {"booked": booked, "balances": balances, "refused": refused}


if __name__ == "__main__":
    print(asyncio.run(main()))
