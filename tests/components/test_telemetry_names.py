"""Every event that is emitted is documented here, and carries its instance."""

import re
from pathlib import Path

from continuum.telemetry import Emitter, TelemetryEvent, attach, detach

PACKAGE = Path(__file__).resolve().parents[2] / "continuum"
EMITS = re.compile(
    r"""(?:\bemit|\bobserve|_emit)\(\s*f?["']([a-z_.{}]+)["']|partial\(self\._node\.emit, ["']([a-z_.]+)["']"""
)

# name → what it says. Run events carry run_id, workflow, version and namespace; activity events also activity,
# command_id, attempt and queue.
EVENTS = {
    "instance.started": "the journal is open and the verbs work",
    "instance.drained": "a drain has ended; `complete` tells whether nothing was left behind",
    "instance.stopped": "the journal is closed",
    "instance.left_leases": "the database was away at the stop: the sweep of others will find what was held",
    "owner.registered": "this process may hold leases, under `owner`",
    "owner.lost": "its row is gone: everything leased to it is given up",
    "owner.dead": "somebody else's row had expired and was deleted",
    "lease.renewal_failed": "a renewal did not succeed; the next is tried soon",
    "lease.lost": "a run's lease is another's by now",
    "lease.released": "a lease that could not be used was given back",
    "loop.blocked": "the host's event loop has not moved for `silence_seconds`",
    "loop.crashed": "a pass of a loop raised; it goes on after a pause",
    "commit.blocked": "what was written has had no answer for `silence_seconds`",
    "commit.flushed": "a batch of `writes` was written in `duration_seconds`",
    "commit.contended": "a batch met a lock and is sent again",
    "commit.split": "a batch is sent again in halves, to find who is at fault",
    "commit.ambiguous": "the answer to a batch was lost; each write is asked about",
    "recovery.swept": "runs and tasks of owners without a row were freed",
    "run.started": "a run was inserted with its first turn",
    "run.resumed": "a claimed run was brought to life from `events` of history",
    "run.evicted": "an idle run left memory",
    "run.forwarded": "the owner of a run was called, from `from_node` to `to_node`: a message waits for it",
    "run.completed": "a run returned",
    "run.failed": "a run raised",
    "run.cancelled": "a run was cancelled",
    "run.blocked": "a run waits for better code; `reason` says why",
    "run.drifted": "a run's code does not fit its history at `seq`",
    "run.unservable": "a run was claimed that this node cannot run; it was given back",
    "runs.claimed": "a pass claimed `runs`",
    "runs.pruned": "`runs` were forgotten, their retention had passed",
    "tasks.claimed": "a pass claimed `tasks`",
    "activity.started": "an attempt began",
    "activity.completed": "an attempt returned",
    "activity.retried": "an attempt failed and will be made again in `delay_seconds`",
    "activity.failed": "the last attempt failed",
    "activity.cancelled": "an attempt was stopped: nobody waits for its result",
    "activity.superseded": "a result came too late and was dropped",
    "signal.delivered": "a signal is durable",
    "peer.failed": "a call to `to_node` at `url` did not arrive (`reason`); it rests for `rest_seconds`",
    "peer.refused": "a call that said it came from a peer was not believed; `reason` says why",
    "snapshot.saved": "a history was compacted",
    "listener.attached": "LISTEN has begun",
    "listener.lost": "the listening connection broke; it is made again",
    "notices.lost": "notices could not be sent; polls stand behind them",
}
ENDINGS = ("completed", "failed", "cancelled", "blocked")  # of `f"run.{ending.state.value}"`


def emitted() -> set[str]:
    """Return every name in the code that is handed to an emitter."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name == "telemetry.py":
            continue
        for match in EMITS.finditer(path.read_text()):
            name = match.group(1) or match.group(2)
            found.update([f"run.{ending}" for ending in ENDINGS] if "{" in name else [name])
    return found


def test_every_emitted_event_is_documented_and_every_documented_one_is_emitted() -> None:
    assert emitted() == set(EVENTS)


def test_names_are_dotted_and_what_they_say_is_said() -> None:
    for name, meaning in EVENTS.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name), name
        assert meaning


def test_every_event_carries_its_instance() -> None:
    heard: list[TelemetryEvent] = []
    attach(heard.append)
    try:
        Emitter(instance="orders", node="n")("run.started", {"n": 1}, run_id="r")
    finally:
        detach(heard.append)
    assert heard == [TelemetryEvent("run.started", {"n": 1}, {"instance": "orders", "node": "n", "run_id": "r"})]
    makers = [path for path in PACKAGE.rglob("*.py") if "TelemetryEvent(" in path.read_text()]
    assert [path.name for path in makers] == ["telemetry.py"]  # so there is no event without
