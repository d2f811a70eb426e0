"""`continuum demo` as a user meets it: real processes, a real SIGKILL, on both databases."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from continuum.cli.demo.command import ORDERS
from continuum.embedded_postgres import find_binaries

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "continuum.cli", "demo"]
ENOUGH_SECONDS = 120  # several times what it takes; a test that waits longer has found something

EXPECTING_SOMETHING_ELSE = """
from continuum.cli import main
from continuum.cli.demo import verify
honest = verify.expected_receipt
verify.expected_receipt = lambda order: honest(order).model_copy(update={"label": "?"} if order.number == 7 else {})
main()
"""


def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary), "CI": ""}


def demo(temporary: Path, *options: str, command: list[str] = DEMO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *options],
        check=False,
        cwd=ROOT,
        env=environment(temporary),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ENOUGH_SECONDS,
    )


def last_line(output: str) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(output.splitlines()[-1])
    return summary


def processes_about(place: Path) -> list[str]:
    """Find processes that were told of a directory: nodes have it in their arguments."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        told = " ".join(process.info["cmdline"] or ())
        if str(place) in told and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(told)
    return found


def eventually(claim: Callable[[], bool], *, within: float = 15) -> bool:
    deadline = time.monotonic() + within
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.02)
    return claim()


def assert_told_well(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    summary = last_line(done.stdout)
    assert list(summary) == ["orders", "verified", "killed_pid", "takeover_seconds", "repeats", "runs_per_second"]
    assert (summary["orders"], summary["verified"]) == (ORDERS, ORDERS)
    assert not psutil.pid_exists(summary["killed_pid"])
    assert 1 < summary["takeover_seconds"] < 15  # lease 3 s, renewed every second, plus a pass of recovery
    assert 0 <= summary["repeats"] < 2 * ORDERS
    assert summary["runs_per_second"] > 0
    assert "lease_ttl=3" in done.stdout


def test_every_order_is_verified_on_sqlite_and_nothing_remains(tmp_path: Path) -> None:
    done = demo(tmp_path, "--once")
    assert_told_well(done)
    assert list(tmp_path.iterdir()) == []
    assert processes_about(tmp_path) == []


@pytest.mark.skipif(find_binaries() is None and not os.environ.get("CI"), reason="NO POSTGRESQL FOUND")
def test_every_order_is_verified_on_postgres_and_nothing_remains(tmp_path: Path) -> None:
    done = demo(tmp_path, "--once", "--postgres")
    assert_told_well(done)
    server = re.search(r"pid (\d+), in (\S+)", done.stdout)
    assert server is not None
    assert not psutil.pid_exists(int(server[1]))
    assert not Path(server[2]).exists()
    assert list(tmp_path.iterdir()) == []
    assert processes_about(tmp_path) == []


def test_one_wrong_result_makes_it_fail_and_keeps_the_evidence(tmp_path: Path) -> None:
    done = demo(tmp_path, "--once", command=[sys.executable, "-c", EXPECTING_SOMETHING_ELSE, "demo"])
    assert done.returncode == 1, done.stdout + done.stderr
    assert last_line(done.stdout)["verified"] == ORDERS - 1
    assert "PROBLEM with order 7: the result is Receipt(" in done.stdout
    (kept,) = tmp_path.iterdir()
    assert f"Kept for a look: {kept}" in done.stdout
    assert {"ledger.jsonl", "node-1.log", "node-2.log", "orders.db"} <= {file.name for file in kept.iterdir()}
    assert processes_about(tmp_path) == []


def test_on_a_terminal_it_stays_up_until_interrupted_and_the_calls_it_shows_work(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    terminal = {**environment(tmp_path), "TERM": "xterm"}
    process = subprocess.Popen(DEMO, cwd=ROOT, env=terminal, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        shown = read_terminal(ours, until="Ctrl-C drains the node")
        snippet = shown[shown.index("import asyncio, continuum") : shown.index("Ctrl-C drains")]
        tried = subprocess.run(
            [sys.executable, "-c", snippet],
            check=False,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=ENOUGH_SECONDS,
        )
        assert tried.returncode == 0, tried.stderr
        assert "outcome='shipped'" in tried.stdout
        assert "activity_completed demo.ship" in tried.stdout
        process.send_signal(signal.SIGINT)
        rest = read_terminal(ours, until=None)
        assert process.wait(ENOUGH_SECONDS) == 0, rest
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "SIGKILL for node-" in shown
    assert last_line(rest)["verified"] == ORDERS
    assert list(tmp_path.iterdir()) == []


def read_terminal(terminal: int, *, until: str | None) -> str:
    """Read what a process shows, until a text or its end; escape sequences and carriage returns are left out."""
    shown = b""
    while until is None or until.encode() not in shown:
        try:
            shown += os.read(terminal, 65_536)
        except OSError:  # EIO: the other side is closed
            break
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown.decode())


def test_terminated_half_way_it_tidies_up(tmp_path: Path) -> None:
    process, nodes = half_way(tmp_path)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=ENOUGH_SECONDS)
    assert process.returncode == 130
    assert last_line(output)["error"] == "interrupted"
    assert list(tmp_path.iterdir()) == []
    assert not any(map(psutil.pid_exists, nodes))


def test_nodes_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    process, nodes = half_way(tmp_path)
    process.kill()
    process.communicate(timeout=ENOUGH_SECONDS)
    assert eventually(lambda: processes_about(tmp_path) == [])
    assert eventually(lambda: not any(map(psutil.pid_exists, nodes)))


def half_way(temporary: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start the demo; return it and the process ids of its nodes as soon as orders come in."""
    process = subprocess.Popen(
        [*DEMO, "--once"],
        cwd=ROOT,
        env=environment(temporary),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "are ready" in line:
            return process, [int(pid) for pid in re.findall(r"pid (\d+)", line)]
    pytest.fail(f"the demo ended early with code {process.wait()}")
