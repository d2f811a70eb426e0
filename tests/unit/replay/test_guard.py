"""The guard: a turn that reaches for the real world is blocked or told, and nothing else is."""

# ruff: noqa: BLE001, PTH123, PTH208  # workflows do here what they should not

import asyncio
import gc
import importlib
import linecache
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.request
import weakref
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from continuum.errors import NondeterminismError
from continuum.replay import context, guard
from continuum.replay.guard import guard_of
from continuum.replay.machine import Machine
from tests.unit.replay.builders import START, a_flow, a_run, an_info

HERE = Path(__file__)
setattr(guard._hook, "__cantrace__", True)  # noqa: B010  # else what it runs is hidden from coverage


def a_machine(fn: Callable[..., Any], mode: str) -> Machine:
    return Machine(a_flow(fn), an_info(), guard=guard_of(mode))


def opens() -> object:
    with open(HERE) as file:
        return file.read(1)


def reads_a_path() -> object:
    return HERE.read_text()


def lists() -> object:
    return os.listdir()


def connects() -> object:
    socket.socket().close()
    return None


def starts_a_process() -> object:
    return subprocess.run([sys.executable, "--version"], check=False)


def asks_a_database() -> object:
    return sqlite3.connect(":memory:")


def fetches() -> object:
    return urllib.request.urlopen("http://localhost:1/")


def starts_a_thread() -> object:
    threading.Thread(target=print).start()
    return None


def asks_somebody() -> object:
    return input()


REACHING = [
    (opens, "open"),
    (reads_a_path, "open"),
    (lists, "os.listdir"),
    (connects, "socket.__new__"),
    (starts_a_process, "subprocess.Popen"),
    (asks_a_database, "sqlite3.connect"),
    (fetches, "urllib.Request"),
    pytest.param(
        starts_a_thread,
        "_thread.start",
        marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 tells nobody of threads"),
    ),
    (asks_somebody, "builtins.input"),
]


def a_turn(machine: Machine) -> Any:
    return machine.begin(b"{}", START).outcome


@pytest.mark.parametrize(("reach", "event"), REACHING)
def test_it_blocks_the_run_even_if_the_error_is_caught(reach: Callable[[], object], event: str) -> None:
    caught: list[BaseException] = []

    async def stubborn() -> str:
        try:
            reach()
        except BaseException as error:
            caught.append(error)
        return "unharmed"

    reason = a_turn(a_machine(stubborn, "raise")).reason

    assert reason.startswith(f"a workflow's turn reached for the real world, {event}")
    assert "do it in an activity and await that" in reason
    assert f"(test_guard.py:{reach.__code__.co_firstlineno + 1} in {reach.__name__})" in reason.replace(
        f"{HERE.parent}/", ""
    )
    assert type(caught[0]) is NondeterminismError


@pytest.mark.parametrize(("reach", "event"), REACHING[:4])
def test_or_it_is_told_once_for_each_place(
    reach: Callable[[], object], event: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def flow() -> str:
        for _ in range(3):
            reach()
        return "went on"

    watch = guard_of("warn")
    with caplog.at_level(logging.WARNING, "continuum.guard"):
        for _ in range(2):
            assert Machine(a_flow(flow), an_info(), guard=watch).begin(b"{}", START).outcome.payload == b'"went on"'  # type: ignore[union-attr]

    (record,) = caplog.records
    assert record.name == "continuum.guard"
    assert f"reached for the real world, {event}" in record.getMessage()
    assert f"test_guard.py:{reach.__code__.co_firstlineno + 1}" in record.getMessage()


def test_it_does_not_look_unless_it_is_told_to() -> None:
    async def flow() -> object:
        return opens()

    assert guard_of("off") is None
    assert a_turn(a_machine(flow, "off")).payload == b'"\\""'


def test_a_replay_is_watched_too() -> None:
    async def flow() -> str:
        return "once"

    async def changed() -> object:
        return opens()

    history = a_run(flow).history
    machine = a_machine(changed, "raise")
    machine.replay(history)
    assert "reached for the real world, open" in machine.turn((), START).outcome.reason  # type: ignore[union-attr]


def test_a_finally_block_of_a_run_that_is_given_up_reaches_for_nothing(tmp_path: Path) -> None:
    async def flow() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            (tmp_path / "written").write_text("x")

    machine = a_machine(flow, "raise")
    assert a_turn(machine) is None
    machine.close()
    assert not (tmp_path / "written").exists()


def test_a_side_effect_may_do_what_it_likes() -> None:
    async def flow() -> str:
        name = await context.side_effect(lambda: HERE.read_text()[:3])
        try:
            opens()
        except NondeterminismError:
            return name
        return "was not watched again"

    assert "reached" in a_turn(a_machine(flow, "raise")).reason

    async def proper() -> str:
        return await context.side_effect(lambda: HERE.read_text()[:3])

    assert a_turn(a_machine(proper, "raise")).payload == b'"\\"\\"\\""'


def test_outside_of_a_turn_nothing_is_looked_at() -> None:
    guard_of("raise")
    assert opens() == '"'


def test_other_threads_are_not_in_the_turn() -> None:
    begin, done = threading.Event(), threading.Event()
    read: list[object] = []

    def work() -> None:
        begin.wait(10)
        read.append(opens())
        done.set()

    async def flow() -> bool:
        begin.set()
        return done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert a_turn(a_machine(flow, "raise")).payload == b"true"
    thread.join()
    assert read == ['"']


def test_code_may_be_imported_in_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "guarded_late.py").write_text("from pathlib import Path\nTEXT = Path(__file__).read_text()[:4]\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    async def flow() -> object:
        return importlib.import_module("guarded_late").TEXT

    assert a_turn(a_machine(flow, "raise")).payload == b'"from"'
    del sys.modules["guarded_late"]


def test_tracebacks_and_time_zones_may_be_read_in_a_turn() -> None:
    async def flow() -> str:
        linecache.clearcache()
        try:
            raise KeyError("x")
        except KeyError:
            text = traceback.format_exc()
        zoneinfo.ZoneInfo.clear_cache()
        return f"{'raise KeyError' in text} {zoneinfo.ZoneInfo.no_cache('Europe/Berlin').key}"

    assert a_turn(a_machine(flow, "raise")).payload == b'"True Europe/Berlin"'


def test_what_the_garbage_collector_tidies_up_in_a_turn_is_not_the_run_s() -> None:
    class Kept:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            ended.append(opens())

    ended: list[object] = []
    folder = tempfile.mkdtemp()
    kept = Kept()
    weakref.finalize(kept, os.rmdir, folder)
    holder = [kept]
    del kept

    async def flow() -> str:
        holder.clear()
        gc.collect()
        return "unharmed"

    assert a_turn(a_machine(flow, "raise")).payload == b'"unharmed"'
    assert ended == ['"']
    assert not Path(folder).exists()


def test_the_hook_is_installed_once_and_only_if_somebody_asks() -> None:
    program = """
import sys
installed = []
sys.addaudithook = installed.append
import continuum
from continuum.replay.guard import guard_of
guard_of("off")
print(len(installed))
guard_of("warn"), guard_of("raise")
print(len(installed))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=HERE.parents[3]
    )
    assert done.stdout.split() == ["0", "1"]


def test_code_of_nobody_s_file_is_told_by_what_is_nearest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "is_installed", lambda _file: True)

    async def flow() -> object:
        return opens()

    a_turn(a_machine(flow, "warn"))
    (told,) = caplog.messages
    assert told.endswith(f"({__file__}:{opens.__code__.co_firstlineno + 1})")
