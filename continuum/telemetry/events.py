# long: a table; what is emitted, when exactly and with what, side by side
"""Every event that is emitted, when exactly, and what it carries: the source of docs/telemetry.md.

An event is said once, by whoever brought the transition about and after the commit that made it durable; that a caller,
a sweep, a parent or a schedule was behind it makes no difference. What concerns one process (an attempt, a loop, a
call) is said when it happens there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Described:
    """What is said of one event: `when`, the keys that it always has, and those that it has where they are known."""

    when: str
    measurements: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    measurements_if_known: tuple[str, ...] = ()
    metadata_if_known: tuple[str, ...] = ()


def _event(when: str, measurements: str = "", metadata: str = "") -> Described:
    """Read the keys; one that ends in `?` is there where it is known."""
    numbers, words = measurements.split(), metadata.split()
    return Described(
        when,
        measurements=tuple(key for key in numbers if key[-1] != "?"),
        metadata=tuple(key for key in words if key[-1] != "?"),
        measurements_if_known=tuple(key[:-1] for key in numbers if key[-1] == "?"),
        metadata_if_known=tuple(key[:-1] for key in words if key[-1] == "?"),
    )


MEASUREMENTS: Mapping[str, str] = {
    "activities": "activities that the run waits for",
    "attempts": "tries so far",
    "backoff_seconds": "until it is tried again",
    "blocked": "runs that were blocked, because nodes kept dying of them",
    "bytes": "size",
    "collisions": "of this attempt so far",
    "crashes": "of this loop in a row",
    "delay_seconds": "until it is due",
    "details_bytes": "size of what the heartbeat remembers",
    "duration_seconds": "from begin to end: of a run since it was inserted, of an attempt, of a statement or call",
    "events": "records of the history",
    "exhausted": "tasks that were given up, because nodes kept dying of them",
    "failures": "of this batch so far",
    "fire_times": "fire times that started no run",
    "generations": "histories that were deleted",
    "lateness_seconds": "after the time that was asked for, on the database's clock",
    "notices": "that were to be sent",
    "rest_seconds": "until that address is called again",
    "runs": "runs",
    "running": "attempts in this process",
    "silence_seconds": "since the last sign of life",
    "tasks": "tasks",
    "timeout_seconds": "limit",
    "wait_seconds": "since the oldest of the batch was handed in",
    "waited_seconds": "since it was inserted (run), posted (signal), due (attempt), on the database's clock",
    "workflows": "that this node can run",
    "writes": "starts, turns, messages, results in one statement",
}

METADATA: Mapping[str, str] = {
    "activity": "name",
    "attempt": "which try it is, from 1",
    "change": "defined, updated, paused, resumed or deleted",
    "child_run_id": "the child",
    "child_workflow": "its workflow",
    "command_id": "position among what the run's code asked for, in this generation",
    "compensated": "whether compensations ran first",
    "complete": "whether nothing was left behind",
    "error": "type of a failure; text of what befell a loop or connection",
    "event": "the event that a handler failed on",
    "expected": "what the history says",
    "found": "what the code asked for",
    "from_node": "who calls",
    "generation": "of the run's history, from 1",
    "handler": "its repr",
    "kind": "signal, cancel or compensate",
    "lane": "of the committer: 0, or 1 for what can collide with other transactions",
    "level": "of logging, such as WARNING",
    "limit": "timeout or heartbeat_timeout",
    "loop": "name of the component",
    "message": "text of the failure, or of the line",
    "namespace": "of the run",
    "next_attempt": "number of the next try",
    "owner": "who holds the lease: node/instance/boot id/registration",
    "parent_run_id": "the parent, for children",
    "patch": "name of the change",
    "queue": "of the activity",
    "reason": "why",
    "recorded_by": "the run whose result was given",
    "run_id": "the run; of a parent in child events",
    "schedule": "its id",
    "seq": "position in the history",
    "signal": "name",
    "signals": "names of the signals that the run waits for",
    "source": "memory or journal",
    "target_run_id": "the run that is meant",
    "to_node": "who is called",
    "token": "fencing token of the lease",
    "trace_context": "W3C traceparent and tracestate of the run's start, as it is stored",
    "undoes": "the activity that is compensated",
    "url": "address",
    "verbs": "wake, cancel, await, ended",
    "version": "of the workflow",
    "wake_at": "when the run's next timer is due, ISO 8601",
    "workflow": "name",
    "write": "class of what was written",
}

# Of a run that lives in this process.
RUN = "run_id workflow version namespace generation owner token trace_context?"
# Of a run that somebody found in the database: more than its id is not always read.
FOUND = "run_id workflow? version? namespace? generation? owner? token? trace_context?"
ATTEMPT = "run_id workflow namespace activity command_id generation attempt queue owner trace_context?"

EVENTS: Mapping[str, Described] = {
    # --- the instance in this process ---------------------------------------------------------------------------------
    "instance.late": _event(
        "its database is away or behind at its start (`required=False`): it is tried again until it opens", "", "error"
    ),
    "instance.started": _event("the journal is open and the verbs work"),
    "instance.drain_started": _event("no more work is taken", "timeout_seconds"),
    "instance.drained": _event("a drain has ended", "duration_seconds", "complete"),
    "instance.stopped": _event("the journal is closed"),
    "instance.left_leases": _event(
        "the database was away at the stop: the sweep of others will find what was held", "", "error"
    ),
    "owner.registered": _event("this process may hold leases from now on, under this owner id", "", "owner"),
    "owner.lost": _event("its row is gone: everything leased to it is given up", "", "owner"),
    "owner.dead": _event("somebody else's row had expired and was deleted", "", "owner"),
    "lease.acquired": _event("a run was leased to this process: it was claimed, or inserted so", "", RUN),
    "lease.renewed": _event("the owner's row was renewed, and with it all leases", "duration_seconds", "owner"),
    "lease.renewal_failed": _event("a renewal did not succeed; the next is tried soon", "", "owner? error"),
    "lease.released": _event(
        "a run that goes on was given back; `reason`: evicted, drained, blocked, unservable, refused (a commit was), unknown (held and not known here)",
        "",
        f"{FOUND} reason",
    ),
    "lease.lost": _event("a run's lease is another's by now, or nobody's", "", RUN),
    "loop.blocked": _event("the host's event loop has not moved for longer than a lease lasts", "silence_seconds"),
    "loop.crashed": _event("a pass of a loop raised; it goes on after a pause", "crashes", "loop error"),
    "loop.restarted": _event("the pause after a crash is over", "crashes", "loop"),
    "handler.detached": _event("a handler of these events raised and hears no more of them", "", "handler event error"),
    # --- runs ---------------------------------------------------------------------------------------------------------
    "run.enqueued": _event(
        "a run was inserted for whoever claims it: at once, or at `wake_at`",
        "",
        "run_id workflow version namespace parent_run_id? wake_at?",
    ),
    "run.started": _event(
        "a run's first turn is durable: once per run, however it was inserted",
        "waited_seconds",
        f"{RUN} parent_run_id?",
    ),
    "run.suspended": _event(
        "the run has nothing to do until an activity, a timer, a signal or a child moves it",
        "activities",
        f"{RUN} signals wake_at?",
    ),
    "run.resumed": _event(
        "the run moves again; `source`: it rested in memory, or was claimed and is read from the journal",
        "events",
        f"{RUN} source",
    ),
    "run.replayed": _event("its code was brought to where its history ends", "events duration_seconds", RUN),
    "run.evicted": _event("an idle run left memory to make room, or because nothing here would wake it", "", RUN),
    "run.drained": _event("an idle run left memory because the instance drains", "", RUN),
    "run.continued": _event("a run opened its next `generation`, as `version`", "", RUN),
    "run.forwarded": _event("the owner of a run was called: a message waits for it", "", "run_id from_node to_node"),
    "run.patched": _event("the run's code took a change for the first time", "", f"{RUN} patch"),
    "run.completed": _event("a run returned", "duration_seconds", RUN),
    "run.failed": _event("a run raised", "duration_seconds", f"{RUN} error message"),
    "run.cancelling": _event("a cancel was taken, and what is owed is undone first", "", RUN),
    "run.cancelled": _event("a run was cancelled", "duration_seconds", f"{RUN} compensated"),
    "run.blocked": _event("a run waits for better code, or to be tried again", "", f"{FOUND} reason"),
    "run.drifted": _event("a run's code does not fit its history; it is blocked next", "", f"{RUN} seq expected found"),
    "run.unservable": _event("this node cannot run it; it was given back", "", f"{FOUND} reason"),
    "run.requeued": _event("the sweep freed it from an owner without a row: whoever has room claims it", "", "run_id"),
    "runs.retried": _event("blocked runs are due now: there is new code that they may have waited for", "runs"),
    "runs.pruned": _event("runs and histories were forgotten, their retention had passed", "runs generations"),
    "versions.carried": _event("a node told the others which workflows it can run", "workflows", "owner"),
    "versions.untold": _event("it could not be told which code this node carries; it is tried again", "", "error"),
    # --- activities ---------------------------------------------------------------------------------------------------
    "activity.scheduled": _event("the turn that asked for it is durable", "", f"{RUN} activity command_id queue"),
    "activity.started": _event("an attempt began", "waited_seconds?", ATTEMPT),
    "activity.heartbeat": _event("an attempt's sign of life was stored", "details_bytes", ATTEMPT),
    "activity.idempotency_hit": _event(
        "it was answered by what it returned before under its key; nothing ran", "", f"{ATTEMPT} recorded_by"
    ),
    "activity.collided": _event(
        "a transactional attempt's transaction collided with another one, and begins anew in the same attempt",
        "collisions",
        f"{ATTEMPT} error",
    ),
    "activity.completed": _event("an attempt returned; its result is on its way", "duration_seconds?", ATTEMPT),
    "activity.timed_out": _event(
        "an attempt outlived its timeout, or was silent for too long; retried or failed comes next",
        "duration_seconds?",
        f"{ATTEMPT} limit",
    ),
    "activity.retried": _event(
        "an attempt failed and another will be made", "delay_seconds duration_seconds?", f"{ATTEMPT} next_attempt error"
    ),
    "activity.failed": _event(
        "the last attempt failed, or the sweep gave the task up; the failure is on its way",
        "duration_seconds?",
        "run_id command_id generation attempt owner error workflow? namespace? activity? queue? trace_context?",
    ),
    "activity.cancelled": _event("an attempt was stopped: nobody waits for its result", "duration_seconds?", ATTEMPT),
    "activity.fenced": _event(
        "a result was dropped: its task is over or another attempt's (superseded), or cannot be written",
        "",
        "run_id command_id generation attempt owner reason error?",
    ),
    "activity.requeued": _event(
        "the sweep freed the task of an owner without a row; this attempt is lost",
        "",
        "run_id command_id generation attempt owner",
    ),
    "compensation.scheduled": _event(
        "the turn that undoes an activity is durable; its attempts are those of `activity`",
        "",
        f"{RUN} activity command_id undoes",
    ),
    "compensation.completed": _event("what was owed is undone", "", f"{RUN} activity command_id undoes"),
    "compensation.failed": _event(
        "a compensation failed for good; the others go on", "", f"{RUN} activity command_id undoes error"
    ),
    # --- timers, signals, children, messages --------------------------------------------------------------------------
    "timer.scheduled": _event(
        "the turn that began a sleep or timeout is durable", "delay_seconds", f"{RUN} command_id"
    ),
    "timer.fired": _event("the turn that it moved is durable", "lateness_seconds", f"{RUN} command_id"),
    "signal.delivered": _event("a sender was told that its signal is durable", "", "run_id signal"),
    "signal.duplicate": _event("a sender was told that its delivery id had been taken before", "", "run_id signal"),
    "signal.awaited": _event(
        "the run has come to rest and waits for a signal of this name; again each time that it comes to rest",
        "",
        f"{RUN} signal",
    ),
    "signal.received": _event(
        "a signal stands in the run's history; `waited_seconds` if it went through the inbox",
        "waited_seconds?",
        f"{RUN} signal",
    ),
    "signal.buffered": _event("it was received and is kept: the code does not wait for it now", "", f"{RUN} signal"),
    "child.started": _event(
        "the parent's turn that inserted it is durable", "", f"{RUN} command_id child_run_id child_workflow"
    ),
    "child.completed": _event("the parent was told that it returned", "", f"{RUN} command_id? child_run_id"),
    "child.failed": _event("the parent was told that it raised", "", f"{RUN} command_id? child_run_id error"),
    "child.cancelled": _event("the parent was told that it was cancelled", "", f"{RUN} command_id? child_run_id"),
    "message.sent": _event(
        "the turn in which a workflow signals or cancels another run is durable",
        "",
        f"{RUN} command_id kind target_run_id",
    ),
    "message.answered": _event("the workflow was told what came of it", "", f"{RUN} command_id"),
    "run.logged": _event(
        "a turn is durable in which the workflow called `continuum.log`",
        "",
        "run_id workflow version namespace generation level message",
    ),
    "side_effect.recorded": _event("the value of a `side_effect` is durable", "", f"{RUN} command_id"),
    # --- who looks for work -------------------------------------------------------------------------------------------
    "dispatcher.polled": _event("a pass asked the database for runs", "runs duration_seconds", "owner"),
    "dispatcher.claimed": _event("it got some", "runs", "owner"),
    "dispatcher.saturated": _event("a pass found no room for more executions", "runs", "owner"),
    "activity_dispatcher.polled": _event("a pass asked the database for tasks", "tasks duration_seconds", "owner"),
    "activity_dispatcher.claimed": _event("it got some", "tasks", "owner"),
    "activity_dispatcher.saturated": _event("a pass found no free slot", "running", "owner"),
    "recovery.swept": _event("runs and tasks of owners without a row were freed", "runs tasks exhausted blocked"),
    "snapshot.taken": _event("a history was compacted", "events bytes", RUN),
    "snapshot.skipped": _event(
        "a history was not compacted, and the run goes on as it is; `reason`: unreadable, superseded",
        "",
        f"{RUN} reason error?",
    ),
    # --- the group committer ------------------------------------------------------------------------------------------
    "commit.flushed": _event("a batch was written", "writes duration_seconds wait_seconds?", "lane"),
    "commit.refused": _event(
        "one write was refused; `reason`: fenced (somebody else had the right to write) or unwritable",
        "",
        "lane run_id write reason error?",
    ),
    "commit.contended": _event("a batch met a lock and is sent again", "writes", "lane"),
    "commit.split": _event("a batch is sent again in halves, to find who is at fault", "writes", "lane"),
    "commit.ambiguous": _event("the answer to a batch was lost; each write is asked about", "writes", "lane error"),
    "commit.failed": _event("the database was away; the batch is sent again", "writes failures", "lane error"),
    "commit.blocked": _event("what was written has had no answer for longer than a lease lasts", "silence_seconds"),
    # --- other processes ----------------------------------------------------------------------------------------------
    "peer.called": _event("a call arrived", "runs duration_seconds", "to_node url verbs"),
    "peer.failed": _event(
        "a call did not arrive; `reason`: unreachable, refused, shared (several processes stand behind the address)",
        "runs rest_seconds",
        "to_node url verbs reason",
    ),
    "peer.refused": _event("a call that said it came from a peer was not believed", "", "reason"),
    "listener.attached": _event("LISTEN has begun"),
    "listener.absent": _event(
        "this process cannot LISTEN and polls instead; `reason` says why, and what to do", "", "reason"
    ),
    "listener.lost": _event("the listening connection broke; it is made again", "", "error"),
    "notices.lost": _event("notices could not be sent; polls stand behind them", "notices", "error"),
    # --- schedules ----------------------------------------------------------------------------------------------------
    "schedule.changed": _event("a schedule was changed", "", "schedule change"),
    "schedule.fired": _event("a run was started for a fire time", "lateness_seconds", "schedule run_id"),
    "schedule.triggered": _event("a run was started out of turn", "", "schedule run_id"),
    "schedule.skipped": _event(
        "fire times started no run; `reason`: the last run was active (overlap), or too long ago (missed)",
        "fire_times",
        "schedule reason",
    ),
    "schedule.buffered": _event("a run is put off until the schedule's last one has ended", "", "schedule run_id"),
    "schedule.retried": _event(
        "a schedule could not start its run; it is tried again", "attempts backoff_seconds", "schedule error"
    ),
    "schedule.failed": _event(
        "a schedule could not start its run; it rests until it is resumed", "attempts", "schedule error"
    ),
}
