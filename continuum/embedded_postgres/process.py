"""The `postgres` process: our child, that never outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from continuum.embedded_postgres.place import Account
from continuum.errors import ConfigurationError

_START_SECONDS = 60  # half a second is usual; crash recovery after a long benchmark takes longer
_STOP_SECONDS = 30  # a fast shutdown writes a checkpoint
_STEP_SECONDS = 0.01  # between two looks at the status of a server that starts
_STATUS_LINE = 7  # of postmaster.pid, where the postmaster says how far it is (LOCK_FILE_LINE_PM_STATUS, from 1: 8)
_KERNEL_TELLS = sys.platform == "linux"  # of a parent's death: PR_SET_PDEATHSIG

# Runs between us and postgres, in a fresh interpreter, because code between fork and exec is unsafe in a process with
# threads: becomes the given user, arranges for the end of its parent, turns into postgres (which keeps its process id).
# A parent that ends in order writes a byte into the pipe; one that dies leaves end-of-file.
_CHILD = """
import ctypes, os, signal, sys
parent, watched, user, group, *command = sys.argv[1:]
if os.getuid() == 0:
    os.setgroups([]); os.setgid(int(group)); os.setuid(int(user))
if int(watched) < 0:
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
else:
    server = os.getpid()
    if os.fork() == 0:
        if not os.read(int(watched), 1):
            os.kill(server, signal.SIGQUIT)
        os._exit(0)
    os.close(int(watched))
os.execv(command[0], command)
"""


class Process:
    """A running postmaster; made by `launch`, which returns when it accepts connections."""

    def __init__(self, child: subprocess.Popen[bytes], watcher: int | None) -> None:
        self._child = child
        self._watcher = watcher

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return self._child.pid

    @classmethod
    def launch(cls, command: list[str], *, data: Path, log: Path, account: Account) -> Process:
        """Start the server whose data directory and log are given; raise `ConfigurationError` if it does not come up."""
        watched, watcher = (-1, None) if _KERNEL_TELLS else os.pipe()
        identity = [str(os.getpid()), str(watched), str(account.user), str(account.group)]
        with log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _CHILD, *identity, *command],
                cwd=data.parent,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[watched] if watcher is not None else [],
                start_new_session=True,  # Ctrl-C in a terminal is for us: we end the server in order
            )
        if watcher is not None:
            os.close(watched)
        process = cls(child, watcher)
        if not process._is_ready_in_time(data):
            process.end(signal.SIGQUIT)
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ConfigurationError(f"PostgreSQL did not start. The end of its log:\n{tail}")
        return process

    def _is_ready_in_time(self, data: Path) -> bool:
        for _ in range(int(_START_SECONDS / _STEP_SECONDS)):
            try:
                self._child.wait(_STEP_SECONDS)
            except subprocess.TimeoutExpired:
                if self._is_ready(data):
                    return True
            else:
                return False
        return False

    def _is_ready(self, data: Path) -> bool:
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The file of a postmaster that was killed stays behind, and says that it is ready.
        return len(lines) > _STATUS_LINE and lines[0] == str(self.pid) and lines[_STATUS_LINE].strip() == "ready"

    def end(self, how: signal.Signals) -> None:
        """Send SIGINT (fast: in order) or SIGQUIT (immediate: a crash) and wait for the end."""
        self._child.send_signal(how)
        try:
            self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.send_signal(signal.SIGQUIT)
            self._child.wait(_STOP_SECONDS)
        if self._watcher is not None:
            os.write(self._watcher, b".")
            os.close(self._watcher)
            self._watcher = None


def environment() -> dict[str, str]:
    """Give our own environment without PGDATA, PGPORT and their kin: those are about other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
