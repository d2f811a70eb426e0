"""The table: what workflow code must not do, why, and what to do instead.

Longest name wins, so a module can be forbidden and one of its functions allowed or explained better. A hint names
nothing that does not exist; a test looks each name up. `docs/guides/determinism.md` prints this table.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What comes of it."""

    DIVERGES = "diverges"  # a replay may take another way: the run drifts
    REPEATS = "repeats"  # a replay does it again; the run's way is the same
    DOUBTFUL = "doubtful"  # it depends on what this check cannot see


@dataclass(frozen=True, slots=True)
class Given:
    """A call is pure when it has so many positional arguments, or this keyword (and it is not None)."""

    position: int
    keyword: str | None = None

    def __call__(self, call: ast.Call) -> bool:
        """Tell whether a call is."""
        positional = [argument for argument in call.args if not isinstance(argument, ast.Starred)]
        given = positional[self.position - 1 : self.position]
        given += [one.value for one in call.keywords if one.arg == self.keyword and one.arg is not None]
        return any(not _is_none(value) for value in given)

    def __str__(self) -> str:
        if self.keyword is not None:
            return f"not with `{self.keyword}`"
        return "not with an argument" if self.position == 1 else f"not with {self.position} arguments"


@dataclass(frozen=True, slots=True)
class Rule:
    """Names that stand for the same trouble; `unless` a call is pure. `on_sight`: naming it is enough."""

    names: tuple[str, ...]
    why: str
    hint: str
    kind: Kind = Kind.DIVERGES
    unless: Given | None = None
    on_sight: bool = False


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _all(prefix: str, names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names.split())


NOW = "use `continuum.now()`, the time of the turn"
ACTIVITY = "do it in an activity (`@continuum.activity`) and await that"
FACT = "ask in an activity, or keep what was found with `continuum.side_effect(...)`"
SAY = 'use `continuum.log("info", ...)`, which is silent on replay'
RANDOM = "draw from `continuum.random()`, the run's own `random.Random`"
UUID = "use `continuum.uuid4()`"
TASK = "start tasks with `asyncio.create_task(...)` or `asyncio.TaskGroup()`; put blocking work into a `def` activity"

CALLS: tuple[Rule, ...] = (
    # --- time
    Rule(
        ("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"),
        "reads the wall clock",
        NOW,
    ),
    Rule(("datetime.date.today",), "reads the wall clock", "use `continuum.today(tz)`, the date of the turn"),
    Rule(
        ("datetime.datetime.fromtimestamp", "datetime.date.fromtimestamp"),
        "depends on the host's time zone",
        "say which: `datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)`",
        Kind.DOUBTFUL,
        unless=Given(2, "tz"),
    ),
    Rule(
        ("datetime.datetime.astimezone",),
        "depends on the host's time zone when none is given",
        "say which: `continuum.now().astimezone(tz)`",
        Kind.DOUBTFUL,
        unless=Given(1, "tz"),
    ),
    Rule(("time.sleep",), "blocks the host's loop and is not journaled", "`await asyncio.sleep(...)`, a durable timer"),
    Rule(("time.gmtime", "time.ctime", "time.localtime", "time.asctime"), "reads the wall clock", NOW, unless=Given(1)),
    Rule(("time.strftime",), "reads the wall clock", NOW, unless=Given(2)),
    Rule(("time",), "reads a clock", NOW),
    Rule(_all("pendulum", "now today yesterday tomorrow"), "reads the wall clock", NOW),
    Rule(_all("arrow", "now utcnow"), "reads the wall clock", NOW),
    Rule(_all("django.utils.timezone", "now localdate localtime"), "reads the wall clock", NOW),
    Rule(_all("pandas", "Timestamp.now Timestamp.utcnow Timestamp.today"), "reads the wall clock", NOW),
    # --- chance
    Rule(("random.SystemRandom", "secrets", "os.urandom", "os.getrandom"), "draws from the system's entropy", RANDOM),
    Rule(("random",), "draws from a generator that all of the process shares", RANDOM),
    Rule(("random.Random",), "seeds itself from the system's entropy", RANDOM, unless=Given(1, "x")),
    Rule(("numpy.random.default_rng",), "seeds itself from the system's entropy", RANDOM, unless=Given(1, "seed")),
    Rule(("numpy.random",), "draws from a generator that all of the process shares", RANDOM),
    Rule(_all("uuid", "uuid1 uuid4 uuid6 uuid7 uuid8 getnode"), "is another id on every replay", UUID),
    Rule(("uuid_utils", "uuid6", "ulid", "shortuuid", "nanoid"), "is another id on every replay", UUID),
    # --- the process and its host
    Rule(
        ("os.environ", "os.environb", "os.getenv", "os.getenvb"),
        "differs from process to process",
        "read it when the module is imported and pass what matters as an argument of the workflow, or keep what was "
        "found with `continuum.side_effect(...)`",
        on_sight=True,
    ),
    Rule(("sys.argv",), "differs from process to process", FACT, on_sight=True),
    Rule(("sys.stdin",), "reads from the terminal", ACTIVITY, on_sight=True),
    Rule(("sys.stdout", "sys.stderr"), "is written again on every replay", SAY, Kind.REPEATS, on_sight=True),
    Rule(
        ("sys.exit", "exit", "quit", "os._exit", "os.abort"),
        "ends a process that runs other workflows",
        "return, or raise an exception: it fails the run",
    ),
    Rule(("os", "os.path"), "asks or changes the host", ACTIVITY),
    Rule(("platform", "getpass", "pwd", "grp"), "differs from host to host", FACT),
    Rule(("signal",), "concerns the whole process", "operating system signals belong to the host"),
    Rule(
        ("id", "hash"),
        "differs from process to process (hashes of strings and bytes, addresses)",
        "compare values, or take a digest with `hashlib.sha256(...)`",
        Kind.DOUBTFUL,
    ),
    Rule(("exec", "eval", "compile"), "runs code that cannot be checked", ACTIVITY, Kind.DOUBTFUL),
    # --- what is said
    Rule(("print",), "prints again on every replay", SAY, Kind.REPEATS),
    Rule(("logging", "loguru", "structlog", "syslog"), "logs again on every replay", SAY, Kind.REPEATS),
    # --- files
    Rule(("open", "io.open_code", "codecs.open"), "reaches for a file", ACTIVITY),
    Rule(("input", "getpass.getpass"), "reads from the terminal", ACTIVITY),
    Rule(
        _all(
            "pathlib.Path",
            "open read_text read_bytes write_text write_bytes exists is_file is_dir is_symlink is_mount is_socket "
            "is_fifo is_block_device is_char_device stat lstat iterdir glob rglob walk mkdir rmdir unlink rename replace "
            "touch chmod lchmod resolve cwd home expanduser absolute samefile owner group readlink symlink_to "
            "hardlink_to copy copy_into move move_into",
        ),
        "reaches for a file",
        ACTIVITY,
    ),
    Rule(("shutil", "tempfile", "glob", "fileinput", "aiofiles", "mmap", "fcntl"), "reaches for files", ACTIVITY),
    # --- the network
    Rule(
        (
            *("socket", "socketserver", "ssl", "select", "selectors", "http.client", "http.server", "urllib.request"),
            *("smtplib", "ftplib", "imaplib", "poplib", "xmlrpc.client", "webbrowser"),
            *("requests", "httpx", "aiohttp", "urllib3", "websockets", "websocket", "grpc", "paramiko", "aiosmtplib"),
            *("boto3", "botocore", "aioboto3", "aiobotocore", "openai", "anthropic", "stripe"),
        ),
        "reaches for the network",
        ACTIVITY,
    ),
    # --- databases
    Rule(
        (
            *_all("sqlalchemy", "create_engine Engine Connection engine.Engine engine.Connection"),
            *_all("sqlalchemy.orm", "Session sessionmaker scoped_session"),
            *_all("sqlalchemy.ext.asyncio", "create_async_engine AsyncEngine AsyncConnection AsyncSession"),
            *_all("sqlalchemy.ext.asyncio", "async_sessionmaker async_scoped_session"),
            *("sqlite3", "aiosqlite", "psycopg", "psycopg2", "asyncpg", "pymysql", "aiomysql", "redis", "pymongo"),
            *("motor", "elasticsearch", "kafka", "aiokafka", "pika", "aio_pika", "celery"),
        ),
        "reaches for a database or a broker",
        "do it in an activity (`@continuum.activity`), which may have a session of its own",
    ),
    # --- threads and processes
    Rule(
        ("asyncio.to_thread",),
        "runs in a thread, outside of the journal",
        "make it a `def` activity (`@continuum.activity`): it has threads of its own",
    ),
    Rule(
        ("threading", "_thread", "multiprocessing", "concurrent.futures", "queue", "sched", "anyio.to_thread"),
        "belongs to threads or processes, whose order no replay repeats",
        TASK,
    ),
    Rule(
        ("subprocess", "pty", "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell"),
        "starts a process",
        ACTIVITY,
    ),
    Rule(
        (*_all("asyncio", "open_connection start_server open_unix_connection start_unix_server"),),
        "reaches for the network",
        ACTIVITY,
    ),
    Rule(
        _all("asyncio", "run Runner new_event_loop set_event_loop run_coroutine_threadsafe"),
        "brings another event loop; a workflow has one of its own",
        "`await` it, or start it with `asyncio.create_task(...)`",
    ),
    Rule(
        ("asyncio.all_tasks",),
        "lists the host's tasks, of which a workflow's are none",
        "keep the tasks that you make, or make them in an `asyncio.TaskGroup()`",
    ),
    Rule(("trio", "curio", "gevent", "eventlet"), "brings another event loop", TASK),
    # --- continuum itself
    Rule(
        _all("continuum", "start start_many"),
        "is for code outside of workflows",
        "start a child with `continuum.start_child(...)`, or do it in an activity (`@continuum.activity`)",
    ),
    Rule(
        (
            *_all(
                "continuum", "await_run get_run list_runs history drain readiness migrate application children lifespan"
            ),
            *_all(
                "continuum",
                "schedule get_schedule list_schedules delete_schedule pause_schedule resume_schedule versions preflight",
            ),
            *_all("continuum", "trigger_schedule backfill_schedule"),
        ),
        "is for code outside of workflows",
        ACTIVITY,
    ),
    Rule(
        ("continuum.activity_context",),
        "is for activities",
        "ask `continuum.info()` for what a workflow may know of its run",
    ),
)

SHARED: tuple[Rule, ...] = (  # objects that were made before the workflow ran, by class
    Rule(("random.Random",), "draws from a generator that all runs of the process share", RANDOM),
    Rule(
        _all("asyncio", "Lock Event Condition Semaphore BoundedSemaphore Queue PriorityQueue LifoQueue Barrier"),
        "is shared by runs, and bound to another loop",
        "make it inside of the workflow",
        on_sight=True,
    ),
    Rule(
        (
            *_all("_thread", "lock LockType RLock"),
            *_all("threading", "Condition Event Semaphore BoundedSemaphore Barrier"),
        ),
        "holds the host's loop until another thread lets go",
        "a run needs no lock against others; within it, make an `asyncio.Lock()`",
        on_sight=True,
    ),
)

METHODS = Rule(  # by name alone: the receiver is a loop, whose class no annotation tells
    _all("loop", "run_in_executor call_soon_threadsafe run_until_complete run_forever"),
    "is missing on a workflow's loop",
    TASK,
)

SET_ORDER = Rule(
    ("set-order",),
    "takes things in the order of a set, which differs from process to process",
    "iterate over `sorted(...)`, a `list` or a `dict`",
    Kind.DOUBTFUL,
)
WAIT_ORDER = Rule(
    ("wait-order",),
    "takes tasks in the order of a set that `asyncio.wait` returned: it replays, but nobody chose it",
    "iterate over the list that was waited for and ask `task.done()`",
    Kind.DOUBTFUL,
)
MODULE_STATE = Rule(
    ("module-state",),
    "changes what outlives the run and is not journaled; every replay changes it again",
    "keep it in a local variable; what others must see goes through an activity (`@continuum.activity`)",
)
EXCEPT_ALL = Rule(
    ("except-all",),
    "swallows cancellation too (`asyncio.CancelledError` is a BaseException), and what else asyncio and Continuum raise",
    "catch `Exception`, or raise it again",
    Kind.DOUBTFUL,
)
BARE_ACTIVITY = Rule(
    ("activity-fn",),
    "performs an activity here, on every replay, without journal or retry",
    "call the activity itself; its `fn` is for unit tests",
)
NOT_AWAITED = Rule(
    ("not-awaited",),
    "makes a coroutine that nobody awaits, so nothing of it is ever done",
    "write `await` before it, or start it with `asyncio.create_task(...)`",
)
CONSTRUCTS: tuple[Rule, ...] = (SET_ORDER, WAIT_ORDER, MODULE_STATE, EXCEPT_ALL, BARE_ACTIVITY, NOT_AWAITED)

# What is allowed although its module is not. A class stands for its methods too.
PURE: frozenset[str] = frozenset(
    (
        *_all("time", "struct_time strptime"),
        "random.Random",  # which is for methods: the rule above is for making one
        *_all("secrets", "compare_digest"),
        *_all("uuid", "UUID uuid3 uuid5 SafeUUID"),
        *_all("os", "fspath fsencode fsdecode PathLike"),
        *_all("os.path", "join split splitext splitdrive splitroot basename dirname normpath normcase isabs"),
        *_all("os.path", "commonpath commonprefix"),
        *_all("numpy.random", "Generator PCG64 SeedSequence"),
        *_all("logging", "getLevelName getLevelNamesMapping"),
        *_all("ssl", "DER_cert_to_PEM_cert PEM_cert_to_DER_cert"),
        *_all("socket", "htonl htons ntohl ntohs inet_aton inet_ntoa inet_pton inet_ntop"),
        *_all("selectors", "SelectorKey"),
        *_all("glob", "escape has_magic translate"),
        *_all("httpx", "URL QueryParams Headers Timeout Limits codes"),
        *_all("aiohttp", "ClientTimeout"),
        *_all("uuid_utils", "UUID"),
        *_all("ulid", "parse from_str"),
    )
)


def covers(names: Iterable[str], dotted: str) -> str | None:
    """Return the longest of `names` that is `dotted` or a prefix of it by whole words, or None."""
    known = frozenset(names)
    while dotted:
        if dotted in known:
            return dotted
        dotted = dotted.rpartition(".")[0]
    return None


def _by_name(rules: Iterable[Rule]) -> dict[str, Rule]:
    return {name: rule for rule in rules for name in rule.names}


BY_NAME = _by_name(CALLS)
SHARED_BY_NAME = _by_name(SHARED)
METHOD_NAMES = {name.rpartition(".")[2]: METHODS for name in METHODS.names}
