"""Peers call each other, over a wire that loses, delays and misleads as it is told; nothing here polls."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import continuum
from continuum import ConfigurationError, InstanceNotStarted, RunCancelled, workflow
from continuum.clock import VirtualClock
from continuum.composition import peering
from continuum.journal.memory import MemoryStore
from continuum.runtime import peer_door, peers
from continuum.runtime.signing import WINDOW_SECONDS, Call
from continuum.telemetry import TelemetryEvent, attach, detach
from tests.support.stage import Node, Stage, settled

TOLD = ("run.forwarded", "peer.failed", "peer.refused")


@workflow
async def waits() -> int:
    return await continuum.wait_signal("go", int)


@dataclass
class Reply:
    status_code: int
    content: bytes = b""
    headers: Mapping[str, str] | None = None


class Wire:
    """What stands between the nodes: an HTTP client for all of them."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.calls: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.trouble: int | Exception | None = None
        self.hold: asyncio.Event | None = None
        self.under_way = self.most = 0

    async def request(self, method: str, url: str, *, content: bytes, headers: Mapping[str, str], **_: Any) -> Reply:
        base, _instance, road = url.rsplit("/", 2)
        self.calls.append((url, json.loads(content), dict(headers)))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if isinstance(self.trouble, Exception):
                raise self.trouble
            if self.trouble is not None:
                return Reply(self.trouble)
            lower = {name.lower(): value for name, value in headers.items()}
            answer = self.nodes[base].instance.receive(road, lower, content)  # type: ignore[arg-type]
            return Reply(answer.status, answer.body)
        finally:
            self.under_way -= 1

    async def aclose(self) -> None:
        raise AssertionError("whoever gave the client closes it")


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def told() -> Iterator[list[TelemetryEvent]]:
    events: list[TelemetryEvent] = []
    attach(events.append, TOLD)
    yield events
    detach(events.append)


async def node_on(stage: Stage, wire: Wire, *, secret: Any = "s3cret", **options: Any) -> Node:
    url = f"http://n{len(stage.nodes)}/continuum"
    node = await stage.node(advertise_url=url, peers={"secret": secret, "client": wire}, **options)
    wire.nodes[url] = node
    return node


@pytest.fixture
async def pair(stage: Stage, wire: Wire) -> tuple[Node, Node]:
    """An owner, and another node."""
    return await node_on(stage, wire), await node_on(stage, wire, run_supervisor=False)


async def started(node: Node) -> str:
    run = await node.instance.start(waits)
    await settled()
    assert node.holds(run.run_id)
    return run.run_id


def hear_others(node: Node) -> list[str]:
    """Listen to what a node would NOTIFY."""
    heard: list[str] = []
    node.parts.wakes.tell_others = heard.append
    return heard


# --- wakes ------------------------------------------------------------------------------------------------------------


async def test_a_signal_to_the_wrong_node_reaches_the_owner_by_the_peer_road_alone(
    pair: tuple[Node, Node], told: list[TelemetryEvent]
) -> None:
    owner, other = pair
    heard = hear_others(other)
    run_id = await started(owner)
    assert await other.instance.signal(run_id, "go", 7) == "delivered"
    await settled()
    assert await owner.instance.await_run(run_id) == 7
    assert owner.parts.wakes.roads == {"peer": 1}
    assert heard == []
    (event,) = told
    assert event.name == "run.forwarded"
    assert event.metadata == {
        "instance": "stage", "node": "n1", "run_id": run_id, "from_node": "n1", "to_node": "n0"
    }  # fmt: skip


async def test_a_burst_is_a_few_calls(pair: tuple[Node, Node], wire: Wire) -> None:
    owner, other = pair
    runs = [await started(owner) for _ in range(50)]
    wire.hold = asyncio.Event()
    for run_id in runs:
        await other.instance.signal(run_id, "go", 1)
    wire.hold.set()
    await settled()
    assert [len(said["runs"]) for _, said, _ in wire.calls] == [1, 49]
    assert not any(owner.holds(run_id) for run_id in runs)


async def test_calls_at_once_are_bounded(stage: Stage, wire: Wire) -> None:
    owners = [await node_on(stage, wire) for _ in range(5)]
    runs = [await started(owner) for owner in owners]
    options = {"secret": "s3cret", "client": wire, "concurrency": 2}
    other = await stage.node(run_supervisor=False, advertise_url="http://x", peers=options)
    wire.hold = asyncio.Event()
    for run_id in runs:
        await other.instance.signal(run_id, "go", 1)
    await settled()
    assert wire.under_way == 2
    wire.hold.set()
    await settled()
    assert (wire.most, len(wire.calls)) == (2, 5)


async def test_what_one_peer_can_be_told_is_bounded(
    pair: tuple[Node, Node], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = pair
    monkeypatch.setattr(peers, "BOX_MAX", 3)
    heard = hear_others(other)
    runs = [await started(owner) for _ in range(6)]
    wire.hold = asyncio.Event()
    for run_id in runs:
        await other.instance.signal(run_id, "go", 1)
    assert heard == runs[4:], "one is on the wire, three wait, the others take the next road"
    wire.hold.set()


@pytest.mark.parametrize(
    ("trouble", "reason"), [(OSError("refused"), "unreachable"), (503, "refused"), (401, "refused")]
)
async def test_where_a_peer_cannot_be_called_a_notice_goes_at_once_and_the_peer_rests(
    stage: Stage,
    pair: tuple[Node, Node],
    wire: Wire,
    told: list[TelemetryEvent],
    trouble: int | Exception,
    reason: str,
) -> None:
    owner, other = pair
    heard = hear_others(other)
    run_id = await started(owner)
    wire.trouble = trouble
    await other.instance.signal(run_id, "go", 7)
    await settled()
    assert heard == [run_id]
    await other.instance.signal(run_id, "go", 8)
    await settled()
    assert (len(wire.calls), heard) == (1, [run_id, run_id]), "it rests: the next goes without a call"
    for _ in range(6):
        await stage.move(peers.REST_MAX_SECONDS / 2)
        await other.instance.signal(run_id, "go", 9)
        await settled()
    rests = [event.measurements["rest_seconds"] for event in told]
    assert {event.metadata["reason"] for event in told} == {reason}
    assert rests[0] <= peers.REST_SECONDS < rests[-1] <= peers.REST_MAX_SECONDS, "each time for longer"
    wire.trouble = None
    await stage.move(peers.REST_MAX_SECONDS)
    await other.instance.signal(run_id, "go", 10)
    await settled()
    assert told[-1].name == "run.forwarded"
    assert await owner.instance.await_run(run_id) == 7


async def test_a_peer_that_is_silent_is_given_up_in_time(stage: Stage, pair: tuple[Node, Node], wire: Wire) -> None:
    owner, other = pair
    heard = hear_others(other)
    run_id = await started(owner)
    wire.hold = asyncio.Event()
    await other.instance.signal(run_id, "go", 7)
    await stage.move(1.9)
    assert heard == []
    await stage.move(0.2)
    assert heard == [run_id]


async def test_a_url_that_several_share_is_left_alone_for_a_while(
    stage: Stage, pair: tuple[Node, Node], wire: Wire, told: list[TelemetryEvent]
) -> None:
    owner, other = pair
    heard = hear_others(other)
    run_id = await started(owner)
    wire.nodes["http://n0/continuum"] = await stage.node(peers={"secret": "s3cret"})  # behind the same port
    for number in (1, 2):
        await other.instance.signal(run_id, "go", number)
        await settled()
    assert heard == [run_id, run_id]
    assert [event.metadata["reason"] for event in told] == ["shared"]
    assert len(wire.calls) == 1
    wire.nodes["http://n0/continuum"] = owner
    await stage.move(peers.SHARED_SECONDS)
    await other.instance.signal(run_id, "go", 3)
    await settled()
    assert len(wire.calls) == 2
    assert not owner.holds(run_id)


async def test_a_wake_for_a_run_that_was_given_up_makes_its_former_owner_claim(
    pair: tuple[Node, Node], wire: Wire
) -> None:
    owner, other = pair
    run_id = await started(owner)
    before = owner.owner
    execution = owner.parts.registry.get(run_id)
    assert execution is not None
    assert execution.evict()
    await settled()
    await other.instance.signal(run_id, "go", 1)  # nobody holds it: nobody is called
    assert wire.calls == []
    other.parts.wakes.forward(run_id, before, "http://n0/continuum", cancels=False)  # by who looked before
    await settled()
    assert await owner.instance.await_run(run_id) == 1


# --- who is believed --------------------------------------------------------------------------------------------------


def call_of(wire: Wire) -> tuple[dict[str, str], bytes]:
    _, said, headers = wire.calls[-1]
    return {name.lower(): value for name, value in headers.items()}, json.dumps(said).encode()


async def a_captured_call(pair: tuple[Node, Node], wire: Wire) -> tuple[Node, str, dict[str, str], bytes]:
    """A call that was sent and lost, and the run that still waits."""
    owner, other = pair
    run_id = await started(owner)
    wire.trouble = OSError("lost")
    await other.instance.signal(run_id, "go", 7)
    await settled()
    return owner, run_id, *call_of(wire)


async def test_a_call_that_is_not_believed_is_401_and_changes_nothing(
    stage: Stage, pair: tuple[Node, Node], wire: Wire
) -> None:
    owner, run_id, headers, body = await a_captured_call(pair, wire)
    unsigned = {"continuum-to": headers["continuum-to"]}
    for road in ("wake", "peer"):
        assert owner.instance.receive(road, unsigned, body).status == 401
        assert owner.instance.receive(road, {}, body).status == 401
    assert owner.instance.receive("wake", headers, body.replace(b"runs", b"rums")).status == 401
    assert owner.instance.receive("wake", {**headers, "continuum-to": "me"}, body).status == 401
    await stage.move(WINDOW_SECONDS + 1)
    assert owner.instance.receive("wake", headers, body).status == 401
    await settled()
    assert owner.holds(run_id)
    assert not owner.parts.wakes.roads


async def test_a_captured_call_is_good_until_it_is_stale(pair: tuple[Node, Node], wire: Wire) -> None:
    owner, run_id, headers, body = await a_captured_call(pair, wire)
    assert owner.instance.receive("wake", headers, body).status == 204
    await settled()
    assert not owner.holds(run_id)


async def test_a_call_for_another_process_is_421(pair: tuple[Node, Node], wire: Wire) -> None:
    owner, run_id, headers, body = await a_captured_call(pair, wire)
    assert pair[1].instance.receive("wake", headers, body).status == 421
    assert owner.holds(run_id)


async def test_a_call_that_is_signed_and_makes_no_sense_is_400(pair: tuple[Node, Node]) -> None:
    owner = pair[0]
    call = Call("/stage/wake", owner.owner, b'{"runs": 7}')
    headers = peering.keys_for(owner.instance.settings).sign(call, owner.parts.node.database_now())
    lower = {name.lower(): value for name, value in headers.items()}
    assert owner.instance.receive("wake", lower, call.body).status == 400


async def test_nodes_that_share_no_secret_do_not_reach_each_other(stage: Stage, wire: Wire) -> None:
    owner, other = await node_on(stage, wire), await node_on(stage, wire, secret="another", run_supervisor=False)
    heard = hear_others(other)
    run_id = await started(owner)
    await other.instance.signal(run_id, "go", 1)
    await settled()
    assert owner.holds(run_id)
    assert heard == [run_id]


async def test_a_secret_is_rotated_node_by_node(stage: Stage, wire: Wire) -> None:
    owner = await node_on(stage, wire, secret="old")
    other = await node_on(stage, wire, secret=["old", "new"], run_supervisor=False)
    third = await node_on(stage, wire, secret=["new", "old"])
    for node in (owner, third):
        run_id = await started(node)
        await other.instance.signal(run_id, "go", 1)
        await settled()
        assert node.parts.wakes.roads == {"peer": 1}


async def test_a_stopped_instance_receives_nothing(pair: tuple[Node, Node]) -> None:
    await pair[0].children.stop()
    with pytest.raises(InstanceNotStarted):
        pair[0].instance.receive("wake", {}, b"")


# --- awaiting and cancelling ------------------------------------------------------------------------------------------


async def test_whoever_awaits_elsewhere_is_told_by_the_owner_without_a_poll(
    pair: tuple[Node, Node], wire: Wire
) -> None:
    owner, other = pair
    run_id = await started(owner)
    waiting = [asyncio.ensure_future(other.instance.await_run(run_id)) for _ in range(20)]
    await settled()
    assert [said.get("await") for _, said, _ in wire.calls] == [[run_id]], "asked once for all"
    await owner.instance.signal(run_id, "go", 7)
    await settled()
    assert [await one for one in waiting] == [7] * 20
    assert wire.calls[-1][0] == "http://n1/continuum/stage/peer"
    assert wire.calls[-1][1]["ended"] == [run_id]
    assert len(owner.parts.peering.askers) == 0


async def test_a_run_that_ended_while_its_owner_was_asked_is_looked_at_once_more(
    pair: tuple[Node, Node], wire: Wire
) -> None:
    owner, other = pair
    run_id = await started(owner)
    wire.hold = asyncio.Event()
    waiting = asyncio.ensure_future(other.instance.await_run(run_id))
    await settled()
    await owner.instance.signal(run_id, "go", 7)
    await settled()
    assert not waiting.done()
    wire.hold.set()
    await settled()
    assert await waiting == 7


async def test_an_asker_asks_again_for_as_long_as_it_waits_and_is_forgotten_afterwards(
    stage: Stage, wire: Wire
) -> None:
    owner = await node_on(stage, wire, lease_ttl=1e6)
    other = await node_on(stage, wire, lease_ttl=1e6, run_supervisor=False, has_pollers=True)
    run_id = await started(owner)
    waiting = asyncio.ensure_future(other.instance.await_run(run_id))
    await stage.move(3 * peer_door.WATCH_SECONDS)
    assert sum("await" in said for _, said, _ in wire.calls) >= 6
    assert len(owner.parts.peering.askers) == 1
    waiting.cancel()
    await stage.move(2 * peer_door.WATCH_SECONDS)
    asked = len(wire.calls)
    later = await started(owner)
    owner.parts.peering.askers.add(later, "somebody", "http://n1/continuum")
    assert len(owner.parts.peering.askers) == 1, "whoever did not ask again is forgotten"
    assert len(wire.calls) == asked


async def test_more_askers_than_a_node_remembers_are_left_to_their_poll(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_door, "WATCHED_MAX", 1)
    askers = pair[0].parts.peering.askers
    assert [askers.add(run_id, "somebody", "http://x") for run_id in ("a", "b", "a")] == [True, False, True]


async def test_a_cancel_is_honoured_by_the_owner_elsewhere(
    stage: Stage, pair: tuple[Node, Node], wire: Wire, told: list[TelemetryEvent]
) -> None:
    owner, other = pair
    run_id = await started(owner)
    before = stage.clock.monotonic()
    assert await other.instance.cancel(run_id) == "cancelled"
    assert stage.clock.monotonic() == before, "no poll was waited for"
    assert wire.calls[0][1]["cancel"] == [run_id]
    assert [event.name for event in told] == ["run.forwarded"]
    with pytest.raises(RunCancelled):
        await other.instance.await_run(run_id)


async def test_a_cancel_that_does_not_reach_the_owner_is_recorded(
    stage: Stage, pair: tuple[Node, Node], wire: Wire
) -> None:
    owner, other = pair
    run_id = await started(owner)
    wire.trouble = OSError("away")
    cancelling = asyncio.ensure_future(other.instance.cancel(run_id))
    await stage.move(3)
    assert await cancelling == "requested"
    await owner.once("signal_router")
    assert not owner.holds(run_id)


async def test_a_cancel_takes_the_lease_of_an_owner_without_a_row(pair: tuple[Node, Node], wire: Wire) -> None:
    owner, other = pair
    run_id = await started(owner)
    await owner.parts.journal.retire(owner.owner)
    wire.trouble = OSError("dead")
    assert await other.instance.cancel(run_id) == "cancelled"


# --- starting ---------------------------------------------------------------------------------------------------------


class Router:
    """Stands for what a host mounts: part of a cycle, like every application."""

    def __init__(self) -> None:
        self.itself = self


async def test_a_url_without_a_secret_is_not_advertised(stage: Stage) -> None:
    with pytest.raises(ConfigurationError, match="has no secret"):
        await stage.node(advertise_url="http://n/continuum")
    await stage.node(advertise_url="http://n/continuum", peers={"insecure": True})
    await stage.node(advertise_url="http://n/continuum", peers=False)


async def test_a_router_lends_its_secret_to_whom_it_serves_and_while_it_lives(stage: Stage) -> None:
    with pytest.raises(ConfigurationError, match="peer_secret"):
        peering.lend(Router(), None, 7, insecure=False)
    others, ours = Router(), Router()
    peering.lend(others, ["billing"], "s", insecure=False)
    with pytest.raises(ConfigurationError, match="has no secret"):
        await stage.node(advertise_url="http://n/continuum")
    peering.lend(ours, None, "s", insecure=False)
    await stage.node(advertise_url="http://n/continuum")
    del ours
    with pytest.raises(ConfigurationError, match="has no secret"):
        await stage.node(advertise_url="http://n/continuum")


async def test_an_insecure_pair_works_without_signatures(stage: Stage, wire: Wire) -> None:
    nodes = []
    for url in ("http://n0/continuum", "http://n1/continuum"):
        nodes.append(await stage.node(advertise_url=url, peers={"insecure": True, "client": wire}))
        wire.nodes[url] = nodes[-1]
    run_id = await started(nodes[0])
    await nodes[1].instance.signal(run_id, "go", 1)
    await settled()
    assert nodes[0].parts.wakes.roads == {"peer": 1}


@pytest.mark.parametrize("options", [{"secret": ""}, {"insecure": 1}, {"client": 7}, {"timeout": 0}, {"key": "s"}])
async def test_what_peers_are_given_is_checked(stage: Stage, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="peers"):
        await stage.node(peers=options)


async def test_calls_are_signed_with_the_time_of_the_database_whatever_the_hosts_say(stage: Stage, wire: Wire) -> None:
    stage.store = MemoryStore(VirtualClock(stage.clock.now() + timedelta(hours=1)))
    owner, client = await node_on(stage, wire), await node_on(stage, wire, client_only=True)
    run_id = await started(owner)
    await client.instance.signal(run_id, "go", 5)
    await settled()
    assert owner.parts.wakes.roads == {"peer": 1}


async def test_a_client_without_workers_calls_and_is_told(stage: Stage, wire: Wire, clock: VirtualClock) -> None:
    owner, client = await node_on(stage, wire), await node_on(stage, wire, client_only=True)
    run_id = await started(owner)
    waiting = asyncio.ensure_future(client.instance.await_run(run_id))
    await settled()
    await client.instance.signal(run_id, "go", 5)
    await settled()
    assert await waiting == 5
    assert owner.parts.wakes.roads == {"peer": 1}
    assert wire.calls[-1][1]["ended"] == [run_id]
