"""Schemathesis calls a host with a real database, thousands of times, by its schema, and finds nothing.

Two runs share the work, each in a process of its own and with a host of its own: what is generated per operation
(examples, coverage of the schema, 200 random requests each), and chains of requests along the links between operations.
The seed is printed with the result; `SCHEMATHESIS_SEED` repeats a run.
"""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.postgres import fresh_database

EXAMPLES = 200
SECONDS_MAX = 300
HERE = Path(__file__).parent
SEED = int(os.environ.get("SCHEMATHESIS_SEED") or random.SystemRandom().randrange(2**32))


@contextmanager
def running(database_url: str) -> Iterator[str]:
    """Run the host in a process; yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-m", "tests.http.fuzzed", database_url, str(port)]) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/continuum/orders/health/ready")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the host does not come up")


@pytest.mark.parametrize("phases", ["examples,coverage,fuzzing", "stateful"])
async def test_schemathesis_finds_nothing(phases: str, postgres_url: str, tmp_path: Path) -> None:
    async with fresh_database(postgres_url) as database_url:
        with running(database_url) as url:
            command = [
                *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(HERE / "schemathesis.toml")),
                *("run", f"{url}/openapi.json", "--phases", phases, "--max-examples", str(EXAMPLES)),
                *("--seed", str(SEED), "--generation-database", "none", "--no-color", "--continue-on-failure"),
            ]
            done = subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=SECONDS_MAX
            )
    print(done.stdout[-10_000:], done.stderr[-2_000:])
    assert done.returncode == 0, f"seed {SEED}"
