"""Every option of an instance, once: its name, default, check and meaning. Docs are generated from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from sqlalchemy.ext.asyncio import AsyncEngine

from continuum.codec import PAYLOAD_MAX, PayloadCodec
from continuum.definitions.activity import Activity
from continuum.definitions.workflow import Workflow
from continuum.errors import ConfigurationError
from continuum.model.failure import DETAILS_MAX
from continuum.model.names import is_instance_name
from continuum.model.policy import Duration, seconds
from continuum.replay.guard import GUARD_MODES, GuardMode
from continuum.replay.machine import DEPTH_MAX
from continuum.runtime.signing import Keys, keys_of

Check = Callable[[str, Any], Any]


def _duration(name: str, value: Any) -> float:
    result = seconds(value, name=name)
    if result == 0:
        raise ConfigurationError(f"{name} must be longer than 0")
    return result


def _maybe_duration(name: str, value: Any) -> float | None:
    return None if value is None else _duration(name, value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be an integer of at least 1, not {value!r}")
    return value


def _maybe_count(name: str, value: Any) -> int | None:
    return None if value is None else _count(name, value)


def _queues(name: str, value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping) or not all(isinstance(queue, str) and queue for queue in value):
        raise ConfigurationError(f"{name} must map queue names to how many may run at once, not {value!r}")
    return {queue: _count(f"{name}[{queue!r}]", limit) for queue, limit in value.items()}


def _secret(name: str, value: Any) -> Keys:
    return keys_of(name, value)


def _is_flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigurationError(f"{name} must be True or False, not {value!r}")


def _client(name: str, value: Any) -> Any:
    if value is None or callable(getattr(value, "request", None)):
        return value
    raise ConfigurationError(f"{name} must have httpx.AsyncClient's request(), not {value!r}")


def _guard(name: str, value: Any) -> str:
    if value in GUARD_MODES:
        return str(value)
    raise ConfigurationError(f'{name} must be "raise", "warn" or "off", not {value!r}')


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `default` None means that it is derived (`meaning` says how)."""

    name: str
    default: Any
    check: Check
    meaning: str


@dataclass(frozen=True, slots=True)
class Part:
    """One component: its options, and what happens when it is off."""

    name: str
    options: tuple[Option, ...]
    meaning: str
    when_off: str


INSTANCE: tuple[Option, ...] = (
    Option("lease_ttl", 30.0, _duration, "how long a lease outlives its process's last heartbeat, seconds"),
    Option("drain_timeout", 10.0, _duration, "how long a stop waits for executions and attempts, seconds"),
    Option("payload_max", PAYLOAD_MAX, _count, "bytes of one input, result or signal"),
    Option("details_max", DETAILS_MAX, _count, "bytes of an error's details or a heartbeat's"),
    Option(
        "guard",
        "off",
        _guard,
        'what comes of I/O in a turn (files, sockets, processes, threads): `"raise"` blocks the run, `"warn"` logs each '
        'place once to `continuum.guard`, `"off"` does not look',
    ),
    Option("history_max", 50_000, _count, "events of one history; beyond that the run is blocked"),
    Option("max_child_depth", DEPTH_MAX, _count, "ancestors that a child may have"),
)

PARTS: tuple[Part, ...] = (
    Part("pubsub", (), "in-process notices of endings", "everyone polls"),
    Part("registry", (), "run id → execution living here", "this node hosts no runs"),
    Part(
        "run_supervisor",
        (Option("cache", 10_000, _count, "executions kept in memory; idle ones beyond that are evicted"),),
        "owns executions",
        "`start` inserts unleased; other nodes run it",
    ),
    Part(
        "activity_supervisor",
        (
            Option("max_concurrency", 100, _count, "attempts at once"),
            Option("threads", 10, _count, "threads for `def` activities"),
            Option("queues", {}, _queues, "limits of single queues, within max_concurrency"),
            Option(
                "transactional_concurrency",
                None,
                _maybe_count,
                "attempts of transactional activities at once, each on a connection of the engine's own pool; half of its "
                "pool_size, one on SQLite",
            ),
        ),
        "owns running attempts",
        "activities run elsewhere",
    ),
    Part(
        "heartbeater",
        (Option("interval", None, _duration, "seconds between renewals; lease_ttl / 3"),),
        "renews the owner row",
        "leases last one lease_ttl",
    ),
    Part(
        "dispatcher",
        (
            Option("interval", 1.0, _duration, "seconds between polls"),
            Option("batch", 100, _count, "runs claimed at once"),
        ),
        "claims runs",
        "only runs started here run here",
    ),
    Part(
        "activity_dispatcher",
        (
            Option("interval", 1.0, _duration, "seconds between polls"),
            Option("batch", 100, _count, "tasks claimed at once"),
        ),
        "claims tasks",
        "only activities scheduled here run here",
    ),
    Part(
        "recovery",
        (Option("interval", 1.0, _duration, "seconds between sweeps"),),
        "frees what dead owners held",
        "other nodes sweep",
    ),
    Part(
        "snapshotter",
        (
            Option(
                "threshold", 1_000, _count, "events between two snapshots of a run, unless its workflow says how many"
            ),
            Option("interval", 10.0, _duration, "seconds between passes"),
        ),
        "compacts long histories",
        "cold loads read everything",
    ),
    Part(
        "timer_wheel",
        (Option("horizon", 60.0, _duration, "seconds that it looks ahead"),),
        "fires deadlines to the millisecond",
        "the dispatcher's poll finds them",
    ),
    Part(
        "signal_router",
        (Option("catch_up", None, _duration, "seconds between scans of the inbox; 30, or 1 without LISTEN"),),
        "LISTEN, and its backstop scan",
        "messages are seen when a run is claimed",
    ),
    Part(
        "peers",
        (
            Option("secret", None, _secret, "shared by all nodes; a list to rotate: the first signs, each is accepted"),
            Option("insecure", False, _is_flag, "neither sign nor ask for signatures"),
            Option("timeout", 2.0, _duration, "seconds that a call may take"),
            Option("concurrency", 20, _count, "calls at once"),
            Option(
                "client", None, _client, "an `httpx.AsyncClient`, or what has its interface; default: one of our own"
            ),
        ),
        "forwards wakes, cancels and awaits to the owner's `advertise_url`",
        "LISTEN or polling",
    ),
    Part(
        "schedule_runner",
        (
            Option("interval", 1.0, _duration, "seconds between polls"),
            Option("batch", 100, _count, "schedules fired at once"),
            Option("attempts", 12, _count, "failures in a row to start a run, after which a schedule has failed"),
            Option("backoff", 5.0, _duration, "seconds to the second attempt; doubled for each further one, up to 300"),
        ),
        "fires schedules",
        "other nodes fire them",
    ),
    Part(
        "pruner",
        (
            Option("interval", 60.0, _duration, "seconds between passes"),
            Option("batch", 500, _count, "runs deleted at once"),
            Option(
                "results", None, _maybe_duration, "seconds that results under idempotency keys are kept; None: for ever"
            ),
        ),
        "deletes ended runs past their retention",
        "other nodes prune",
    ),
)

CLIENT_PARTS = frozenset(
    {"pubsub", "signal_router", "peers"}
)  # what verbs without workers have: to hear, and to nudge others

Migrations = Literal["check", "upgrade", "off"]
PartOptions = bool | Mapping[str, Any]


class InstanceOptions(TypedDict, total=False):
    """The keyword arguments of `children()` and `application()` besides name and engine."""

    schema: str | None
    listen_engine: AsyncEngine | None
    advertise_url: str | None
    node: str | None
    migrations: Migrations
    payload_codec: PayloadCodec | None
    state: Any
    workflows: list[Workflow[..., Any]] | None
    activities: list[Activity[..., Any]] | None
    client_only: bool
    required: bool
    lease_ttl: Duration
    drain_timeout: Duration
    payload_max: int
    details_max: int
    history_max: int
    max_child_depth: int
    guard: GuardMode
    pubsub: PartOptions
    registry: PartOptions
    run_supervisor: PartOptions
    activity_supervisor: PartOptions
    heartbeater: PartOptions
    dispatcher: PartOptions
    activity_dispatcher: PartOptions
    recovery: PartOptions
    snapshotter: PartOptions
    timer_wheel: PartOptions
    signal_router: PartOptions
    peers: PartOptions
    schedule_runner: PartOptions
    pruner: PartOptions


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was decided about an instance, checked and with defaults filled in."""

    name: str
    values: dict[str, Any]
    parts: Mapping[str, Mapping[str, Any] | None]  # None: off

    def on(self, part: str) -> bool:
        """Tell whether a component is on."""
        return self.parts[part] is not None

    def part(self, part: str) -> Mapping[str, Any]:
        """Return a component's options; those of one that is off are the defaults."""
        chosen = self.parts[part]
        return chosen if chosen is not None else {option.name: option.default for option in _part(part).options}


def checked_name(name: Any) -> str:
    """Return an instance name.

    Raises:
        ConfigurationError: it does not match `[A-Za-z0-9_.-]{1,64}`.
    """
    if is_instance_name(name):
        return name
    raise ConfigurationError(f"an instance name has 1 to 64 letters, digits, '_', '.' or '-', not {name!r}")


def settings_of(name: str, given: Mapping[str, Any]) -> Settings:
    """Check all options of an instance.

    Raises:
        ConfigurationError: one is unknown or ill-typed; the message names the valid ones.
    """
    known = set(InstanceOptions.__annotations__)
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigurationError(f"unknown option {unknown[0]!r}; valid options are: {', '.join(sorted(known))}")
    values: dict[str, Any] = {
        option.name: option.check(option.name, given.get(option.name, option.default)) for option in INSTANCE
    }
    for option in ("schema", "node"):
        values[option] = _text(option, given.get(option))
    values["advertise_url"] = _url("advertise_url", given.get("advertise_url"))
    migrations = given.get("migrations", "check")
    if migrations not in ("check", "upgrade", "off"):
        raise ConfigurationError(f'migrations must be "check", "upgrade" or "off", not {migrations!r}')
    values["migrations"] = migrations
    values["required"] = _is_flag("required", given.get("required", True))
    values["client_only"] = _is_flag("client_only", given.get("client_only", False))
    values["state"] = given.get("state")
    values["payload_codec"] = _codec(given.get("payload_codec"))
    values["listen_engine"] = _engine("listen_engine", given.get("listen_engine"))
    values["workflows"] = _definitions("workflows", given.get("workflows"), Workflow)
    values["activities"] = _definitions("activities", given.get("activities"), Activity)
    parts = {part.name: _chosen(part, given.get(part.name, True)) for part in PARTS}
    if values["client_only"]:
        parts = {part: chosen if part in CLIENT_PARTS else None for part, chosen in parts.items()}
    beats = parts["heartbeater"]
    if beats is not None and (beats["interval"] or 0.0) >= values["lease_ttl"]:
        raise ConfigurationError(
            f"heartbeater.interval ({beats['interval']:g} s) must be shorter than lease_ttl ({values['lease_ttl']:g} s), "
            "better a third of it: other nodes take over what a node holds that is not heard of for so long"
        )
    if parts["registry"] is None:  # no run can live here, so nobody needs to own executions
        parts["run_supervisor"] = None
    return Settings(checked_name(name), values, parts)


def _chosen(part: Part, given: Any) -> Mapping[str, Any] | None:
    if given is False:
        return None
    chosen = {} if given is True else given
    if not isinstance(chosen, Mapping):
        raise ConfigurationError(f"{part.name} takes True, False or a dict of options, not {given!r}")
    valid = {option.name: option for option in part.options}
    unknown = sorted(set(chosen) - set(valid))
    if unknown:
        listed = ", ".join(valid) or "none"
        raise ConfigurationError(f"unknown option {part.name}.{unknown[0]}; valid options are: {listed}")
    return {
        name: option.check(f"{part.name}.{name}", chosen[name]) if name in chosen else option.default
        for name, option in valid.items()
    }


def _part(name: str) -> Part:
    return next(part for part in PARTS if part.name == name)


def _text(name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise ConfigurationError(f"{name} must be a string or None, not {value!r}")


def _url(name: str, value: Any) -> str | None:
    text = _text(name, value)
    if text is None or text.startswith(("http://", "https://")):
        return text
    raise ConfigurationError(
        f"{name} must begin with http:// or https://, like http://10.0.0.5:8000/continuum: {value!r}"
    )


def _codec(value: Any) -> Any:
    if value is None or (callable(getattr(value, "encode", None)) and callable(getattr(value, "decode", None))):
        return value
    raise ConfigurationError(
        f"payload_codec must have encode(payload, context) and decode(payload, context): {value!r}"
    )


def _engine(name: str, value: Any) -> AsyncEngine | None:
    if value is None or isinstance(value, AsyncEngine):
        return value
    raise ConfigurationError(f"{name} must be an AsyncEngine (create_async_engine) or None, not {value!r}")


def _definitions(name: str, value: Any, kind: type) -> list[Any] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(item, kind) for item in value):
        raise ConfigurationError(f"{name} must be a list of what @{kind.__name__.lower()} made, not {value!r}")
    return list(value)
