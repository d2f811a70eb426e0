"""A PgBouncer in transaction mode, in front of the tests' own PostgreSQL.

It is Debian's package: where it is missing, root installs it (a CI machine starts without it); anybody else is told what
is missing, and the tests that need it are skipped.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

APT = ["apt-get", "install", "--yes", "--no-install-recommends", "pgbouncer"]
# What a host that uses SQLAlchemy and asyncpg behind PgBouncer has to say anyway; see docs/guides/databases.md.
RECIPE: dict[str, Any] = {
    "poolclass": NullPool,
    "connect_args": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
    },
}

RECIPE_OF_PSYCOPG: dict[str, Any] = {"poolclass": NullPool, "connect_args": {"prepare_threshold": None}}
VARIABLE = "CONTINUUM_TEST_PGBOUNCER"  # set: everything that the suites do on PostgreSQL goes through one (make matrix)
POOL_SIZE = 4
INSTALL_SECONDS = 120
START_SECONDS = 10

INI = """
[databases]
* = {target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
server_login_retry = 0.1
logfile = {directory}/pgbouncer.log
pidfile = {directory}/pgbouncer.pid
"""


def binary() -> str:
    """Return PgBouncer's path, installing it if need be; skip with the reason where that is impossible."""
    if found := _found():
        return found
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("NOT TESTED BEHIND PGBOUNCER: there is none, and only root can install it with apt-get")
    with (Path(tempfile.gettempdir()) / "continuum-apt-get.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one installs it
        said = "" if _found() else _install()
    if found := _found():
        return found
    pytest.skip(f"NOT TESTED BEHIND PGBOUNCER: apt-get cannot install it: {said}")


def _install() -> str:
    said = ""
    for command in (APT, ["apt-get", "update"], APT):
        try:
            done = subprocess.run(
                command,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=INSTALL_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"no end after {INSTALL_SECONDS} s"
        if _found():
            return ""
        said = done.stderr[-300:]
    return said


def _found() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class PgBouncer:
    """A running one; `url_of` turns the URL of a database on the server into one that leads through it."""

    def __init__(self, ini: Path, port: int) -> None:
        become = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        self._command = ["setpriv", "--pdeathsig=KILL", *become, binary(), "--quiet", str(ini)]
        self._log = ini.parent / "pgbouncer.log"
        self.port = port
        self._process = self._started()

    def url_of(self, database: str) -> str:
        """Return the way to a database of the server through the pooler."""
        url = make_url(database)
        through = URL.create("postgresql+asyncpg", "postgres", None, "127.0.0.1", self.port, url.database)
        return through.render_as_string(hide_password=False)

    def stop(self) -> None:
        """End it as SIGKILL does."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """End it, and have another one at its port."""
        self.stop()
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return process
            time.sleep(0.02)
        raise RuntimeError(f"PgBouncer did not start: {self._log.read_text() if self._log.exists() else 'no log'}")


@contextmanager
def pgbouncer(server: str, *, pool_size: int = POOL_SIZE) -> Iterator[PgBouncer]:
    """Run a PgBouncer before a server, with so many connections to each database."""
    binary()
    url = make_url(server)
    target = {
        "host": url.query.get("host") or url.host or "127.0.0.1",
        "port": url.port or 5432,
        "user": url.username or "postgres",
        "password": url.password,
    }
    with tempfile.TemporaryDirectory(prefix="continuum-pgbouncer-") as name:
        directory, port = Path(name), _free_port()
        directory.chmod(0o777)
        words = " ".join(f"{key}={value}" for key, value in target.items() if value is not None)
        ini = directory / "pgbouncer.ini"
        ini.write_text(INI.format(target=words, port=port, pool_size=pool_size, directory=directory))
        running = PgBouncer(ini, port)
        try:
            yield running
        finally:
            running.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
