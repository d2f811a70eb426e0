"""Who this process is, and what time the database has."""

import random
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from continuum.clock import VirtualClock
from continuum.runtime.node import WHILE_SECONDS, Node
from continuum.telemetry import Emitter

TTL = 30.0
THEN = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def node(clock: VirtualClock) -> Node:
    numbers = count()
    return Node(
        instance="orders",
        name="host",
        clock=clock,
        draw=random.Random(0),
        new_id=lambda: f"boot{next(numbers)}",
        emit=Emitter(instance="orders", node="host"),
        lease_ttl=TTL,
    )


def test_owner_ids_name_node_instance_and_boot_and_are_never_used_twice(node: Node) -> None:
    assert [node.next_owner() for _ in range(3)] == [f"host/orders/boot0/{n}" for n in (1, 2, 3)]


# P87
def test_the_databases_time_goes_on_by_our_monotonic_clock(node: Node, clock: VirtualClock) -> None:
    node.stamp(THEN)
    clock.move_to(90.0)
    assert node.database_now() == THEN + timedelta(seconds=90)
    assert node.seconds_until(THEN + timedelta(seconds=100)) == 10.0
    assert node.seconds_until(THEN) == -90.0


def test_it_does_not_go_back_for_an_answer_that_was_long_on_its_way(node: Node, clock: VirtualClock) -> None:
    node.stamp(THEN)
    clock.move_to(10.0)
    node.stamp(THEN + timedelta(seconds=4))  # an answer that was long on its way
    assert node.database_now() == THEN + timedelta(seconds=10)
    node.stamp(THEN + timedelta(seconds=60))
    assert node.database_now() == THEN + timedelta(seconds=60)


@pytest.mark.parametrize("seconds", [0.5, 3_600.0])
def test_it_goes_back_with_a_database_whose_clock_was_set_back(node: Node, clock: VirtualClock, seconds: float) -> None:
    """Or our own runs fast: peers whose times differ by half a minute would not believe each other any more."""
    node.stamp(THEN)
    for renewal in range(10, 2 * int(WHILE_SECONDS) + 20, 10):
        clock.move_to(float(renewal))
        late = 0.2 if renewal % 50 else 0.0
        node.stamp(THEN + timedelta(seconds=renewal - seconds - late))
        is_soon = renewal < WHILE_SECONDS
        if is_soon:
            assert node.database_now() == THEN + timedelta(seconds=renewal)
    assert node.database_now() == THEN + timedelta(seconds=renewal - seconds)


def test_before_the_first_stamp_our_own_clock_must_do(node: Node, clock: VirtualClock) -> None:
    assert node.database_now() == clock.now()


def test_who_has_not_renewed_judges_nobody(node: Node) -> None:
    assert not node.may_declare_dead()


def test_after_a_gap_nobody_is_judged_for_a_while(node: Node, clock: VirtualClock) -> None:
    """An outage longer than the TTL lets every row expire: the first one back must not bury all the others."""
    node.renewed()
    assert not node.may_declare_dead()  # booted just now
    for second in (10, 20):
        clock.move_to(float(second))
        node.renewed()
    assert node.may_declare_dead()
    clock.move_to(20 + TTL / 2 + 1)
    assert not node.may_declare_dead()  # the gap
    node.renewed()
    assert not node.may_declare_dead()  # and for ttl / 3 after it
    clock.move_to(clock.monotonic() + TTL / 3)
    assert node.may_declare_dead()
