"""The invariants of the protocol under any order of its steps: the same steps and the same invariants everywhere."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from continuum.model.states import RunState
from tests.journal.backends import Harness, OpenHarness
from tests.journal.builders import TTL
from tests.journal.exploring import Explorer, Node

EXAMPLES = {"memory": 100, "sqlite": 8, "postgres": 6}
STEPS = 40

nodes = st.integers(0, 1)
places = st.integers(0, 7)


def machine_on(harness: Harness, runner: asyncio.Runner) -> type[RuleBasedStateMachine]:
    """Return the state machine over a database that each example finds empty."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.explorer = Explorer(harness)

        def node(self, number: int) -> Node:
            return self.explorer.nodes[number]

        def run(self, step: Coroutine[Any, Any, None]) -> None:
            runner.run(step)

        @initialize()
        def begin(self) -> None:
            self.run(harness.wipe())
            self.run(self.explorer.open())

        @rule(
            node=nodes, with_task=st.booleans(), leased=st.booleans(), attempts=st.integers(1, 2), ends=st.just(False)
        )
        def start(self, node: int, with_task: bool, leased: bool, attempts: int, ends: bool) -> None:
            step = self.explorer.start(
                self.node(node), with_task=with_task, leased_task=leased, max_attempts=attempts, ends=ends
            )
            self.run(step)

        @rule(node=nodes)
        def start_and_end_at_once(self, node: int) -> None:
            self.run(
                self.explorer.start(self.node(node), with_task=False, leased_task=False, max_attempts=1, ends=True)
            )

        @rule(in_seconds=st.sampled_from([0.0, 20.0]))
        def start_unleased(self, in_seconds: float) -> None:
            self.run(self.explorer.start_unleased(in_seconds=in_seconds))

        @rule(node=nodes, key=st.sampled_from(["a", "b"]))
        def start_keyed(self, node: int, key: str) -> None:
            self.run(self.explorer.start_keyed(self.node(node), key))

        @rule(node=nodes, limit=st.sampled_from([1, 9]))
        def claim(self, node: int, limit: int) -> None:
            if self.is_alive(node):
                self.run(self.explorer.claim(self.node(node), limit=limit))

        def is_alive(self, node: int) -> bool:
            return self.node(node).owner in runner.run(harness.owners())

        @rule(
            node=nodes,
            which=places,
            schedules=st.integers(0, 2),
            leased=st.booleans(),
            then=st.sampled_from([None, None, None, RunState.SUSPENDED, RunState.COMPLETED, RunState.CANCELLED]),
            releases=st.booleans(),
            twice=st.booleans(),
        )
        def turn(
            self,
            node: int,
            which: int,
            schedules: int,
            leased: bool,
            then: RunState | None,
            releases: bool,
            twice: bool,
        ) -> None:
            step = self.explorer.turn(
                self.node(node), which, schedules=schedules, leased=leased, then=then, releases=releases, twice=twice
            )
            self.run(step)

        @rule(which=places, delivery_id=st.sampled_from([None, "evt_1", "evt_2"]), twice=st.booleans())
        def signal(self, which: int, delivery_id: str | None, twice: bool) -> None:
            self.run(self.explorer.signal(which, delivery_id=delivery_id, twice=twice))

        @rule(which=places)
        def cancel(self, which: int) -> None:
            self.run(self.explorer.cancel(which))

        @rule(node=nodes, slots=st.integers(1, 3))
        def claim_tasks(self, node: int, slots: int) -> None:
            self.run(self.explorer.claim_tasks(self.node(node), slots=slots))

        @rule(node=nodes, which=places, how=st.sampled_from(["finish", "finish", "retry", "free"]))
        def end_attempt(self, node: int, which: int, how: str) -> None:
            self.run(self.explorer.end_attempt(self.node(node), which, how))

        @rule(seconds=st.sampled_from([2.0, TTL / 2, TTL + 1, 70.0]))
        def age(self, seconds: float) -> None:
            self.run(self.explorer.age(seconds))

        @rule(node=nodes)
        def beat(self, node: int) -> None:
            self.run(self.explorer.beat(self.node(node)))

        @rule()
        def bury(self) -> None:
            self.run(self.explorer.bury())

        @rule()
        def sweep(self) -> None:
            self.run(self.explorer.sweep())

        @rule(node=nodes)
        def audit(self, node: int) -> None:
            self.run(self.explorer.audit(self.node(node)))

        @rule()
        def prune(self) -> None:
            self.run(self.explorer.prune())

        @invariant()
        def what_must_always_be_so(self) -> None:
            self.run(self.explorer.check())

    return Machine


def test_the_invariants_hold_after_any_steps_in_any_order(
    open_harness: OpenHarness, request: pytest.FixtureRequest
) -> None:
    backend = request.node.callspec.params["open_harness"]
    chosen = settings(
        max_examples=EXAMPLES[backend],
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=True,  # the same steps every time: a red run stays red
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        harness = runner.run(stack.enter_async_context(open_harness()))
        try:
            run_state_machine_as_test(machine_on(harness, runner), settings=chosen)
        finally:
            runner.run(stack.aclose())
