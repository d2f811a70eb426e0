"""A purchase waits a week for a human: asked once, reminded every second day, expired after seven.

    python examples/approval.py                                    # in memory: asks, answers itself, prints the outcome
    CONTINUUM_DATABASE_URL=sqlite+aiosqlite:///approval.db python examples/approval.py

The week is tried in virtual time by tests/examples/test_approval.py. Between two signals nothing runs and nothing is
kept in memory that could not be lost: the process may be restarted every day.
"""

import asyncio
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel

import continuum
from continuum import activity, workflow

PATIENCE = timedelta(days=7)
REMIND_EVERY = timedelta(days=2)


class Purchase(BaseModel):
    """What somebody wants to buy."""

    id: str
    what: str
    cents: int
    requester: str
    approver: str


class Decision(BaseModel):
    """What the approver says."""

    approved: bool
    by: str
    comment: str = ""


class Outcome(BaseModel):
    """What became of the purchase."""

    state: Literal["approved", "rejected", "expired"]
    by: str | None = None
    reminders: int = 0


@activity
async def mail(to: str, subject: str) -> None:
    """Send a mail; a real one would hand `activity_context().idempotency_key` to its provider."""
    print(f"to {to}: {subject}")


@activity
async def place_order(purchase: Purchase) -> None:
    """Order it."""
    print(f"ordered: {purchase.what}")


@workflow(name="approval", signals={"decision": Decision}, retention=timedelta(days=365))
async def approval(purchase: Purchase) -> Outcome:
    """Ask, remind, and act on the answer."""
    await mail(purchase.approver, f"please decide: {purchase.what}")
    decision, reminders = await decided(purchase)
    if decision is None:
        await mail(purchase.requester, f"expired: {purchase.what}")
        return Outcome(state="expired", reminders=reminders)
    if decision.approved:
        await place_order(purchase)
    state: Literal["approved", "rejected"] = "approved" if decision.approved else "rejected"
    await mail(purchase.requester, f"{state} by {decision.by}: {purchase.what}")
    return Outcome(state=state, by=decision.by, reminders=reminders)


async def decided(purchase: Purchase) -> tuple[Decision | None, int]:
    """Wait for the decision, reminding now and then; return it, or None after a week, and how often was reminded."""
    deadline, reminders = continuum.now() + PATIENCE, 0
    while True:
        left = deadline - continuum.now()
        try:
            decision = await continuum.wait_signal("decision", Decision, timeout=min(REMIND_EVERY, left))
            return decision, reminders
        except TimeoutError:
            if continuum.now() >= deadline:
                return None, reminders
            reminders += 1
            await mail(purchase.approver, f"reminder {reminders}: {purchase.what}")


async def main() -> Outcome:
    """Play it in a moment: ask for a keyboard, and let Ada answer at once."""
    keyboard = Purchase(id="p-1", what="a keyboard", cents=12_900, requester="grace", approver="ada")
    async with continuum.application(migrations="upgrade"):
        run = await continuum.start(approval, keyboard, idempotency_key=keyboard.id)
        if not run.existing:  # on a database that has seen it, it is the same run, and its outcome is known
            await run.signal("decision", Decision(approved=True, by="ada"))
        return await run.result(timeout=30)


if __name__ == "__main__":
    print(asyncio.run(main()))
