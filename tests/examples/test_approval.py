"""A week of waiting for a human, in a moment; every turn is replayed by other processes."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

import continuum
from continuum import RunHandle
from continuum.testing import Environment, environment
from examples.approval import Decision, Outcome, Purchase, approval, mail, place_order

KEYBOARD = Purchase(id="p-1", what="a keyboard", cents=12_900, requester="grace", approver="ada")


class Office:
    """Where mails and orders arrive."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        self.orders: list[str] = []

    async def mail(self, to: str, subject: str) -> None:
        self.mails.append(f"{to}: {subject}")

    async def order(self, purchase: Purchase) -> None:
        self.orders.append(purchase.id)


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
async def env(office: Office) -> AsyncIterator[Environment]:
    async with environment(activities={mail: office.mail, place_order: office.order}, auto=False, paranoid=True) as env:
        yield env


@pytest.fixture
async def asked(env: Environment) -> RunHandle[Outcome]:
    run = await continuum.start(approval, KEYBOARD)
    await env.settle()
    return run


async def test_an_approved_purchase_is_ordered(env: Environment, asked: RunHandle[Outcome], office: Office) -> None:
    await env.advance(timedelta(hours=3))
    await asked.signal("decision", Decision(approved=True, by="ada"))
    assert await asked.result() == Outcome(state="approved", by="ada")
    assert office.orders == ["p-1"]
    assert office.mails == ["ada: please decide: a keyboard", "grace: approved by ada: a keyboard"]


async def test_whoever_is_silent_is_reminded_every_second_day(
    env: Environment, asked: RunHandle[Outcome], office: Office
) -> None:
    await env.advance(timedelta(days=5))
    assert office.mails[1:] == ["ada: reminder 1: a keyboard", "ada: reminder 2: a keyboard"]
    await asked.signal("decision", Decision(approved=False, by="ada", comment="we have enough"))
    assert await asked.result() == Outcome(state="rejected", by="ada", reminders=2)
    assert office.orders == []


async def test_after_a_week_it_expires(env: Environment, asked: RunHandle[Outcome], office: Office) -> None:
    await env.advance(timedelta(days=6, hours=23))
    assert (await asked.status()).state == "suspended"
    await env.advance(timedelta(hours=1))
    assert await asked.result() == Outcome(state="expired", reminders=3)
    assert office.mails[-1] == "grace: expired: a keyboard"
    with pytest.raises(continuum.RunNotActive):
        await asked.signal("decision", Decision(approved=True, by="ada"))


async def test_a_decision_that_is_none_is_refused_at_the_door(env: Environment, asked: RunHandle[Outcome]) -> None:
    with pytest.raises(continuum.SignalInvalid):
        await asked.signal("decision", {"approved": "perhaps"})
    assert (await asked.status()).state == "suspended"
