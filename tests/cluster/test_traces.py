"""One story, told by spans alone."""

import asyncio
import signal
from typing import Any

from tests.cluster.nodes import Cluster
from tests.support.eventually import eventually

TRACE, CLIENT = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
HEADERS = {"traceparent": f"00-{TRACE:032x}-{CLIENT:016x}-01"}
RUN, ATTEMPT = "continuum.run_attempt", "continuum.activity_attempt"
# A node at which clients arrive, and no more.
FRONT: dict[str, Any] = dict.fromkeys(
    (
        *("run_supervisor", "activity_supervisor", "dispatcher", "activity_dispatcher", "recovery"),
        *("snapshotter", "timer_wheel", "schedule_runner", "pruner"),
    ),
    False,
)


async def test_the_spans_of_a_run_that_outlives_its_node_tell_one_story(cluster: Cluster) -> None:
    nodes = await asyncio.gather(
        cluster.start("a", factory="make_traced", ttl=2.0),
        cluster.start("b", factory="make_traced", ttl=2.0, options=FRONT),
        cluster.start("c", factory="make_traced", ttl=2.0),
    )
    a, b, c = (node for (node,) in nodes)
    run_id = await cluster.run(a, "cluster.both", headers=HEADERS, input={"key": "payload-marker"})
    await eventually(lambda: [span for span in a.spans() if said(span, "run.started")])
    await eventually(lambda: [span for span in a.spans() if span["name"] == ATTEMPT])
    async with cluster.holding() as release:
        await cluster.signal(b, run_id, "payload-marker")
        await eventually(lambda: len(cluster.ledger) == 2, within=20)
        # Its last words are in the file: the run rests, while its second activity lasts.
        await eventually(lambda: [span for span in a.spans() if said(span, "signal.received")])
        a.send(signal.SIGKILL)
        await eventually(lambda: len(cluster.ledger) == 3, within=60)
        release()
    assert (await cluster.result(c, run_id))["result"] == "payload-marker-after"
    assert cluster.ledger == ["payload-marker a", "payload-marker-after a", "payload-marker-after c"]

    def of_the_run() -> list[dict[str, Any]]:
        spans = [span for node in (a, b, c) for span in node.spans()]
        return sorted((one for one in spans if of(one, "run.id") == run_id), key=lambda one: int(one["start"]))

    story = await eventually(lambda: of_the_run() if of(of_the_run()[-1], "run.state") == "completed" else [])

    (start,) = [span for span in a.spans() if span["name"] == "POST /continuum/orders/runs"]
    assert (start["trace"], start["parent"]) == (TRACE, CLIENT)
    assert all(span["links"] == [start["id"]] for span in story), "each begins a trace and points to the start"
    assert len({span["trace"] for span in story}) == len(story)

    first, last = story[0], story[-1]
    assert (first["name"], of(first, "node")) == (RUN, "a")
    assert said(first, "run.started")
    (signalled,) = [span for span in story if said(span, "signal.received")]
    (taken,) = [span for span in story if said(span, "run.replayed")]
    tried, repeated = [span for span in story if span["name"] == ATTEMPT]
    for on_c in (taken, repeated):  # the run may be claimed before its task, or once that has a result
        landmarks = [first, tried, signalled, on_c, last]
        assert [story.index(one) for one in landmarks] == sorted(story.index(one) for one in landmarks)
    assert (of(signalled, "node"), of(last, "node")) == ("a", "c")
    assert of(taken, "node") == "c"
    assert of(taken, "lease.token") > of(first, "lease.token")
    assert (of(tried, "node"), of(tried, "attempt")) == ("a", 1)
    assert (of(repeated, "node"), of(repeated, "attempt")) == ("c", 2), "so the first died with its node"

    (sent,) = [span for span in b.spans() if said(span, "signal.delivered")]
    assert sent["name"].endswith("/signals/go")
    assert of(sent, "run.id", of_event="signal.delivered") == run_id
    (forwarded,) = [span for span in a.spans() if span["name"] == "POST /continuum/orders/wake"]
    assert (forwarded["trace"], forwarded["parent"]) == (sent["trace"], sent["id"]), "peers forward the context"

    everything = "".join(path.read_text() for path in cluster.place.glob("*.spans"))
    assert "payload-marker" not in everything
    assert max(int(span["end"]) - int(span["start"]) for span in story if span["name"] == RUN) < 5e9


def of(span: dict[str, Any], key: str, *, of_event: str | None = None) -> Any:
    attributes = span["attributes"] if of_event is None else dict(span["events"])[of_event]
    return attributes.get(f"continuum.{key}")


def said(span: dict[str, Any], event: str) -> bool:
    return any(name == event for name, _ in span["events"])
