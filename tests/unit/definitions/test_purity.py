"""What a workflow must not do is found at the decorator, however it is spelled; what looks alike and is pure, is not."""

import ast
import builtins
import importlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from continuum.definitions.purity.naming import loaded
from continuum.definitions.purity.rules import CALLS, CONSTRUCTS, METHODS, SHARED, Rule
from continuum.definitions.purity.rules import PURE as PURE_NAMES
from tests.unit.definitions.snippets import found

RULES = (*CALLS, *SHARED, METHODS, *CONSTRUCTS)

# (what stands above the workflow, what stands in it, by which name it is refused)
IMPURE = [
    # spellings of one thing
    ("import datetime", "datetime.datetime.now()", "datetime.datetime.now"),
    ("import datetime as dt", "dt.datetime.now(dt.UTC)", "datetime.datetime.now"),
    ("from datetime import datetime", "datetime.now()", "datetime.datetime.now"),
    ("from datetime import datetime as moment", "x = moment.utcnow()", "datetime.datetime.utcnow"),
    ("from datetime import datetime\nnow = datetime.now", "now()", "datetime.datetime.now"),
    ("import datetime\nnow = datetime.datetime.now", "x = [now() for _ in range(3)]", "datetime.datetime.now"),
    ("", "import datetime\ndatetime.datetime.now()", "datetime.datetime.now"),
    ("", "from datetime import datetime as d\nd.now()", "datetime.datetime.now"),
    ("", "import datetime as d\nclock = d.datetime\nclock.now()", "datetime.datetime.now"),
    ("from datetime import datetime", "f = datetime.now\nf()", "datetime.datetime.now"),
    ("from datetime import datetime", "await asyncio.sleep(0 if datetime.now() else 1)", "datetime.datetime.now"),
    ("from datetime import datetime", "x = f'{datetime.now():%H}'", "datetime.datetime.now"),
    ("from datetime import datetime", "x = {'at': datetime.now()}", "datetime.datetime.now"),
    ("from datetime import datetime", "if (x := datetime.now()):\n    pass", "datetime.datetime.now"),
    ("from datetime import datetime", "def ask():\n    return datetime.now()\nask()", "datetime.datetime.now"),
    ("from datetime import datetime", "x = sorted([1], key=lambda _: datetime.now())", "datetime.datetime.now"),
    ("from datetime import datetime", "x = getattr(datetime, 'now')()", "datetime.datetime.now"),
    ("from datetime import datetime", "match datetime.now():\n    case _: pass", "datetime.datetime.now"),
    ("from datetime import datetime", "try:\n    pass\nfinally:\n    datetime.now()", "datetime.datetime.now"),
    ("import importlib", "importlib.import_module('time').time()", "time.time"),
    ("", "__import__('time').time()", "time.time"),
    ("import datetime", "datetime.date.today()", "datetime.date.today"),
    ("class Clock(__import__('datetime').datetime): pass", "Clock.now()", "datetime.datetime.now"),
    ("def default():\n    return 1\nfrom datetime import datetime", "default() or datetime.today()", "datetime.datetime.today"),
    # time
    ("import time", "time.time()", "time.time"),
    ("from time import monotonic as tick", "tick()", "time.monotonic"),
    ("from time import *", "perf_counter()", "time.perf_counter"),
    ("import time", "time.sleep(1)", "time.sleep"),
    ("import time", "time.gmtime()", "time.gmtime"),
    ("import time", "time.localtime(None)", "time.localtime"),
    ("import time", "time.strftime('%H')", "time.strftime"),
    # chance
    ("import random", "random.random()", "random.random"),
    ("from random import choice as pick", "pick([1, 2])", "random.choice"),
    ("import random", "x = list(map(random.randint, [1], [2]))", "random.randint"),
    ("import functools, random", "roll = functools.partial(random.randint, 1)\nroll(6)", "random.randint"),
    ("import functools, random\nroll = functools.partial(random.randint, 1)", "roll(6)", "random.randint"),
    ("import random", "random.Random()", "random.Random"),
    ("import random", "random.Random(None)", "random.Random"),
    ("import random\ndice = random.Random(7)", "dice.random()", "random.Random"),
    ("import random\nroll = random.Random(7).random", "roll()", "random.Random"),
    ("import random", "random.SystemRandom().random()", "random.SystemRandom"),
    ("import secrets", "secrets.token_hex()", "secrets.token_hex"),
    ("from secrets import token_urlsafe", "token_urlsafe(8)", "secrets.token_urlsafe"),
    ("import uuid", "uuid.uuid4()", "uuid.uuid4"),
    ("from uuid import uuid1 as new", "new()", "uuid.uuid1"),
    ("from uuid import uuid4", "x = dict(default_factory=uuid4)", "uuid.uuid4"),
    ("import os", "os.urandom(8)", "os.urandom"),
    ("", "import numpy\nnumpy.random.rand()", "numpy.random.rand"),
    ("", "from numpy import random as r\nr.normal()", "numpy.random.normal"),
    ("", "import numpy as np\nnp.random.default_rng()", "numpy.random.default_rng"),
    # the process and its host
    ("import os", "os.environ['HOME']", "os.environ"),
    ("from os import environ", "environ.get('HOME')", "os.environ"),
    ("from os import environ as settings", "x = 'HOME' in settings", "os.environ"),
    ("import os", "os.getenv('HOME')", "os.getenv"),
    ("import os", "os.getpid()", "os.getpid"),
    ("from os import getpid", "getpid()", "os.getpid"),
    ("from os import listdir as ls", "ls('.')", "os.listdir"),
    ("import os.path", "os.path.exists('x')", "os.path.exists"),
    ("from os.path import exists", "exists('x')", "os.path.exists"),
    ("import os", "os.path.abspath('x')", "os.path.abspath"),
    ("import sys", "x = sys.argv[1]", "sys.argv"),
    ("import sys", "sys.stdout.write('x')", "sys.stdout"),
    ("from sys import exit", "exit(1)", "sys.exit"),
    ("import platform", "platform.node()", "platform.node"),
    ("import signal", "signal.raise_signal(15)", "signal.raise_signal"),
    # what is said
    ("", "print('x')", "print"),
    ("say = print", "say('x')", "print"),
    ("import logging", "logging.info('x')", "logging.info"),
    ("import logging\nlogger = logging.getLogger('x')", "logger.info('x')", "logging.Logger.info"),
    ("import logging\nlogger = logging.getLogger('x')", "logger.exception('x')", "logging.Logger.exception"),
    ("import logging\nwarn = logging.getLogger('x').warning", "warn('x')", "logging.Logger.warning"),
    ("import logging", "logging.getLogger('x').error('x')", "logging.getLogger"),
    # files
    ("", "with open('x') as f:\n    f.read()", "open"),
    ("import builtins", "builtins.open('x')", "open"),
    ("import io", "io.open('x')", "open"),
    ("", "input()", "input"),
    ("from pathlib import Path", "Path('x').read_text()", "pathlib.Path.read_text"),
    ("import pathlib", "p = pathlib.Path('x')\np.exists()", "pathlib.Path.exists"),
    ("import pathlib", "pathlib.Path.home()", "pathlib.Path.home"),
    ("from pathlib import Path\nHERE = Path('.')", "list(HERE.iterdir())", "pathlib.Path.iterdir"),
    ("import shutil", "shutil.rmtree('x')", "shutil.rmtree"),
    ("import tempfile", "tempfile.mkdtemp()", "tempfile.mkdtemp"),
    # the network
    ("import socket", "socket.socket()", "socket.socket"),
    ("import socket", "socket.gethostname()", "socket.gethostname"),
    ("import urllib.request", "urllib.request.urlopen('http://x')", "urllib.request.urlopen"),
    ("import urllib.request as web", "web.urlopen('http://x')", "urllib.request.urlopen"),
    ("import httpx", "httpx.get('http://x')", "httpx.get"),
    ("import httpx", "async with httpx.AsyncClient() as c:\n    await c.get('x')", "httpx.AsyncClient"),
    ("import httpx\nclient = httpx.AsyncClient()", "await client.get('x')", "httpx.AsyncClient.get"),
    ("", "import requests\nrequests.get('http://x')", "requests.get"),
    ("", "from requests import post as send\nsend('http://x')", "requests.post"),
    ("", "import aiohttp\nasync with aiohttp.ClientSession() as s:\n    pass", "aiohttp.ClientSession"),
    # databases
    ("import sqlite3", "sqlite3.connect('x')", "sqlite3.connect"),
    (
        "from sqlalchemy.ext.asyncio import create_async_engine\nengine = create_async_engine('sqlite+aiosqlite://')",
        "async with engine.begin() as c:\n    pass",
        "sqlalchemy.ext.asyncio.AsyncEngine.begin",
    ),
    (
        "from sqlalchemy.ext.asyncio import async_sessionmaker\nSession = async_sessionmaker()",
        "async with Session() as s:\n    pass",
        "sqlalchemy.ext.asyncio.async_sessionmaker.__call__",
    ),
    ("from sqlalchemy.orm import Session", "Session()", "sqlalchemy.orm.Session"),
    (
        "from sqlalchemy.orm import Session\ndef db() -> Session: ...",
        "db().execute(1)",
        "sqlalchemy.orm.Session.execute",
    ),
    # threads and processes
    ("import threading", "threading.Thread(target=flow).start()", "threading.Thread"),
    ("import threading\nclass Worker(threading.Thread): pass", "Worker().start()", "threading.Thread"),
    ("import threading\nlock = threading.Lock()", "with lock:\n    pass", "_thread.LockType"),
    ("import subprocess", "subprocess.run(['ls'])", "subprocess.run"),
    ("from subprocess import check_output as sh", "sh('ls')", "subprocess.check_output"),
    ("import multiprocessing", "multiprocessing.Process()", "multiprocessing.Process"),
    ("from concurrent.futures import ThreadPoolExecutor", "ThreadPoolExecutor()", "concurrent.futures"),
    ("", "await asyncio.to_thread(len, 'x')", "asyncio.to_thread"),
    ("", "await asyncio.get_running_loop().run_in_executor(None, len, 'x')", "loop.run_in_executor"),
    ("", "loop = asyncio.get_event_loop()\nawait loop.run_in_executor(None, len, 'x')", "loop.run_in_executor"),
    ("", "asyncio.all_tasks()", "asyncio.all_tasks"),
    ("", "await asyncio.create_subprocess_exec('ls')", "asyncio.create_subprocess_exec"),
    ("", "await asyncio.open_connection('x', 1)", "asyncio.open_connection"),
    ("from asyncio import run", "run(flow)", "asyncio.run"),
    # continuum itself
    ("", "await continuum.start(flow, 1)", "continuum.start"),
    ("from continuum import await_run as wait", "await wait('x')", "continuum.await_run"),
    ("", "continuum.activity_context()", "continuum.activity_context"),
    ("@activity\nasync def pay() -> None: ...", "await pay.fn()", "activity-fn"),
    # state that outlives the run
    ("COUNT = 0", "global COUNT\nCOUNT += 1", "module-state"),
    ("COUNT = 0", "global COUNT\nCOUNT = 1", "module-state"),
    ("CACHE = {}", "CACHE['a'] = 1", "module-state"),
    ("CACHE = {'a': []}", "CACHE['a'].append(1)", "module-state"),
    ("CACHE = {}", "del CACHE['a']", "module-state"),
    ("SEEN = []", "SEEN.append(1)", "module-state"),
    ("SEEN = []", "mine = SEEN\nmine.append(1)", "module-state"),
    ("SEEN = set()", "SEEN.add(1)", "module-state"),
    ("import collections\nSEEN = collections.deque()", "SEEN.popleft()", "module-state"),
    ("class Config: limit = 1", "Config.limit = 2", "module-state"),
    ("import string", "string.digits = ''", "module-state"),
    ("COUNT = 0", "def more():\n    global COUNT\n    COUNT = 1\nmore()", "module-state"),
    ("LOCK = asyncio.Lock()", "async with LOCK:\n    pass", "asyncio.Lock"),
    ("GATE = asyncio.Event()", "await GATE.wait()", "asyncio.Event"),
    # forgotten
    ("from continuum import activity\n@activity\nasync def charge() -> int: ...", "charge()", "not-awaited"),
    ("import asyncio", "asyncio.sleep(1)", "not-awaited"),
    ("import asyncio", "queue = asyncio.Queue()\nqueue.put(1)", "not-awaited"),
    ("import continuum", "continuum.wait_signal('go')", "not-awaited"),
    ("", "async def inner(): ...\ninner()", "not-awaited"),
]  # fmt: skip

DOUBTFUL = [
    ("from datetime import datetime", "datetime.fromtimestamp(1)", "datetime.datetime.fromtimestamp"),
    ("", "continuum.now().astimezone()", "datetime.datetime.astimezone"),
    ("", "hash('x')", "hash"),
    ("", "id(flow)", "id"),
    ("", "eval('1')", "eval"),
    ("", "for x in {'a', 'b'}:\n    pass", "set-order"),
    ("", "s = set()\nfor x in s:\n    pass", "set-order"),
    ("", "for x in frozenset('abc'):\n    pass", "set-order"),
    ("NAMES = {'a', 'b'}", "x = [n for n in NAMES]", "set-order"),
    ("", "x = [n for n in {c for c in text}]", "set-order"),
    ("", "x = {n: 1 for n in set(text)}", "set-order"),
    ("", "x = list(set(text))", "set-order"),
    ("", "x = ','.join(set(text))", "set-order"),
    ("", "x = next(iter(set(text)))", "set-order"),
    ("", "x = set(text).pop()", "set-order"),
    ("", "a, b = {text, 'b'}", "set-order"),
    ("", "await asyncio.gather(*{asyncio.sleep(1), asyncio.sleep(2)})", "set-order"),
    ("", "x = list(set(text) - {'a'})", "set-order"),
    ("", "x = list(set(text).union('a'))", "set-order"),
    ("", "x = {'a': 1}\ny = list(x.keys() & {'a'})", "set-order"),
    ("", "x: set[str] = build()\nfor y in x:\n    pass\ndef build(): ...", "set-order"),
    ("def names() -> set[str]: ...", "for x in names():\n    pass", "set-order"),
    ("", "def inner(given: set[str]):\n    return list(given)\ninner(text)", "set-order"),
    ("", "done, _ = await asyncio.wait([])\nfor task in done:\n    task.result()", "wait-order"),
    ("from asyncio import wait as w", "done, pending = await w([])\nx = [t for t in pending]", "wait-order"),
    ("", "for task in (await asyncio.wait([]))[0]:\n    pass", "wait-order"),
    ("", "try:\n    pass\nexcept:\n    pass", "except-all"),
    ("", "try:\n    pass\nexcept BaseException:\n    return", "except-all"),
    ("", "try:\n    pass\nexcept (ValueError, BaseException) as error:\n    x = error", "except-all"),
    ("Anything = BaseException", "try:\n    pass\nexcept Anything:\n    pass", "except-all"),
    ("from contextlib import suppress", "with suppress(BaseException):\n    pass", "except-all"),
]

PURE = [
    # siblings of what is forbidden
    ("from datetime import datetime", "datetime.fromisoformat('2026-01-01')"),
    ("import datetime", "datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=1)"),
    ("from datetime import UTC, datetime", "datetime.fromtimestamp(1, tz=UTC)"),
    ("from datetime import UTC, datetime", "datetime.fromtimestamp(1, UTC)"),
    ("from datetime import UTC, datetime", "datetime.strptime('1', '%d').astimezone(UTC)"),
    ("from datetime import date", "date.fromisoformat('2026-01-01')"),
    ("", "continuum.now().date()"),
    ("", "continuum.now().astimezone(continuum.now().tzinfo)"),
    ("import time", "time.strptime('1', '%d')"),
    ("import time", "time.gmtime(0)"),
    ("import time", "time.strftime('%H', time.gmtime(0))"),
    ("import uuid", "uuid.UUID(text)"),
    ("import uuid", "uuid.uuid5(uuid.NAMESPACE_DNS, 'x')"),
    ("from uuid import UUID, uuid3", "x: UUID = uuid3(UUID(int=1), 'x')"),
    ("import random", "random.Random(7).random()"),
    ("import random", "rng = random.Random(n)\nrng.shuffle([1, 2])"),
    ("import random", "rng: random.Random = continuum.random()\nrng.choice([1])"),
    ("", "continuum.random().randint(1, 6)"),
    ("", "continuum.uuid4()"),
    ("import secrets", "secrets.compare_digest('a', 'b')"),
    ("import os", "os.path.join('a', 'b')"),
    ("from os.path import basename, splitext", "splitext(basename('a'))"),
    ("import os", "os.fspath('a') + os.sep"),
    ("from pathlib import Path", "p = Path('a') / 'b'\nx = p.name, p.suffix, p.with_suffix('.c'), str(p)"),
    ("from pathlib import PurePath", "PurePath('a').joinpath('b')"),
    ("import socket", "socket.inet_aton('1.2.3.4')"),
    ("import socket", "try:\n    pass\nexcept socket.timeout:\n    pass"),
    ("import subprocess", "try:\n    pass\nexcept subprocess.CalledProcessError as e:\n    x = e.returncode"),
    ("import httpx", "raise httpx.HTTPError('x')"),
    ("import httpx", "x = httpx.URL('http://x').host"),
    ("", "import requests\ntry:\n    pass\nexcept requests.RequestException:\n    pass"),
    ("", "import requests\nraise requests.HTTPError()"),
    ("import logging", "continuum.log(logging.INFO, 'x')"),
    ("import signal", "x = signal.SIGTERM"),
    ("import sqlalchemy", "x = sqlalchemy.select(sqlalchemy.column('x'))"),
    ("import functools, json, math, re, decimal, hashlib", "json.dumps([math.pi]); re.match('a', 'b'); hashlib.sha256(b'')"),
    ("import zoneinfo", "continuum.today(zoneinfo.ZoneInfo('Europe/Berlin'))"),
    # names that only look alike
    ("import random", "random = continuum.random()\nrandom.random()"),
    ("import time", "def inner(time):\n    return time.time()\ninner(text)"),
    ("", "print = continuum.log\nprint('info', 'x')"),
    ("", "hash = text\nx = hash"),
    ("def open(name): return name", "open('x')"),
    ("class time:\n    @staticmethod\n    def time(): return 1", "time.time()"),
    ("", "time = text\ntime.strip()"),
    ("import time", "x = [time.real for time in [1, 2]]"),
    ("import random", "try:\n    pass\nexcept ValueError as random:\n    x = random.random"),
    ("import random", "match text:\n    case random:\n        x = random.random"),
    ("import os as system, json as os", "os.loads('1')"),
    # asyncio is the language
    ("", "await asyncio.sleep(1); await asyncio.gather(asyncio.sleep(1))"),
    ("", "async with asyncio.timeout(5), asyncio.TaskGroup() as group:\n    group.create_task(asyncio.sleep(1))"),
    ("", "lock = asyncio.Lock()\nasync with lock:\n    pass"),
    ("", "queue: asyncio.Queue[int] = asyncio.Queue()\nqueue.put_nowait(1)"),
    ("", "tasks = [asyncio.create_task(asyncio.sleep(1))]\nawait asyncio.wait(tasks)\nfor task in tasks:\n    task.done()"),
    ("", "asyncio.get_running_loop().time()"),
    # what is journaled may be anything
    ("import time", "await continuum.side_effect(time.time)"),
    ("import random", "await continuum.side_effect(lambda: random.random())"),
    ("import os", "def ask() -> str:\n    return os.environ['HOME']\nx = await continuum.side_effect(ask)"),
    ("from continuum import side_effect as once\nimport random", "await once(random.random)"),
    ("import time\n@activity\nasync def pay() -> None:\n    time.sleep(1)", "await pay()"),
    ("import time\n@activity\nasync def pay() -> None:\n    time.sleep(1)", "await pay.options(timeout=1)()"),
    # what only runs elsewhere
    ("from datetime import datetime", "x = continuum.now() if continuum.in_workflow() else datetime.now()"),
    ("import time", "if not continuum.in_workflow():\n    time.sleep(1)"),
    ("import time", "if continuum.in_workflow():\n    return\ntime.sleep(1)"),
    ("import time", "if continuum.in_workflow():\n    return\nelse:\n    time.sleep(1)\ntime.time()"),
    ("import time", "def unused():\n    time.sleep(1)"),
    # sets that are asked, not taken in order
    ("", "x = sorted({'a', 'b'}), len({'a'}), 'a' in {'a', 'b'}, min({'a', 'b'}), set(set())"),
    ("", "x = sorted(c.upper() for c in set(text))"),
    ("", "x = {c for c in set(text)}"),
    ("", "x = any(c == 'a' for c in set(text))"),
    ("", "for x in sorted(set(text)):\n    pass"),
    ("", "for x in {1, 2, 3}:\n    pass"),
    ("", "x: set[int] = set()\nfor y in x:\n    pass"),
    ("", "x = set(text)\nx = sorted(x)\nfor y in x:\n    pass"),
    ("", "for x in {'a': 1}:\n    pass"),
    ("", "for key in {'a': 1}.keys():\n    pass"),
    # state of its own
    ("", "mine = {}\nmine['a'] = []\nmine['a'].append(1)"),
    ("", "count = 0\ndef more():\n    nonlocal count\n    count += 1\nmore()"),
    ("LIMITS = {'a': 1}", "x = LIMITS['a'], LIMITS.get('b'), list(LIMITS)"),
    ("LIMITS = {'a': []}", "mine = dict(LIMITS)\nmine.update(b=1)"),
    # awaited, or to be awaited later
    ("from continuum import activity\n@activity\nasync def charge() -> int: ...", "await charge()\nx = charge()\nawait x\nt = asyncio.create_task(charge())\nasyncio.create_task(charge())"),
    ("import asyncio", "queue = asyncio.Queue()\nqueue.put_nowait(1)\nasyncio.gather(queue.get())"),
    ("", "def inner(): ...\ninner()\n(lambda: inner)()()"),
    # catching
    ("", "try:\n    pass\nexcept Exception:\n    pass"),
    ("", "try:\n    pass\nexcept BaseException:\n    x = 1\n    raise"),
    ("", "try:\n    pass\nexcept:\n    raise ValueError from None"),
    ("from contextlib import suppress", "with suppress(ValueError):\n    pass"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "body", "name"), IMPURE)
def test_it_is_refused(header: str, body: str, name: str) -> None:
    errors, doubts = found(header, body)
    assert name in errors or any(error.startswith(f"{name}.") for error in errors), (errors, doubts)


@pytest.mark.parametrize(("header", "body", "name"), DOUBTFUL)
def test_it_is_warned_of(header: str, body: str, name: str) -> None:
    assert found(header, body) == ([], [name])


@pytest.mark.parametrize(("header", "body"), PURE)
def test_it_is_allowed(header: str, body: str) -> None:
    assert found(header, body) == ([], [])


PLACEHOLDERS = {"tz", "seconds", "task", "fn"}


def dotted(node: ast.AST) -> str | None:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            owner = dotted(value)
            return f"{owner}.{name}" if owner else None
        case _:
            return None


def named_by(hint: str) -> Iterator[str]:
    """Yield every dotted name in the code of a hint."""
    for code in set(re.findall(r"`([^`]+)`", hint)) - {"def", "await"}:
        tree = ast.parse(f"async def _():\n    {code.removeprefix('@')}")
        for node in ast.walk(tree):
            name = dotted(node)
            if name is not None:
                yield name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.names[0])
def test_a_hint_names_what_exists(rule: Rule) -> None:
    assert rule.why
    assert rule.hint
    for name in named_by(rule.hint):
        root, *rest = name.split(".")
        if root in PLACEHOLDERS or hasattr(builtins, root):
            continue
        thing: Any = importlib.import_module(root)
        for part in rest:
            thing = getattr(thing, part)


def test_no_name_has_two_rules() -> None:
    names = [name for rule in (*CALLS, *CONSTRUCTS) for name in rule.names]
    assert sorted(names) == sorted(set(names))


def test_what_is_said_to_be_pure_exists_where_its_module_is_there() -> None:
    missing = []
    for name in PURE_NAMES:
        module = name.rpartition(".")[0]
        try:
            importlib.import_module(module.removesuffix(".SafeUUID"))
        except ImportError:
            continue
        if loaded(name) is None:
            missing.append(name)
    assert set(missing) <= {"os.path.splitroot", "glob.translate"}  # of newer Pythons
