"""Nodes as processes: started, asked over HTTP, stopped, killed.

Every process looks whether this one still lives, so none outlives the tests. Ports are chosen by the system: the socket
is bound here and inherited, so nobody else can take it in between (several workers bind the port anew).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from tests.cluster import host
from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a secret of the cluster's"
READY_SECONDS = 40.0
NEVER = 3_600.0
TTL = 3.0
NOWHERE = "http://127.0.0.1:1/continuum"  # a port that nobody listens on

# As in production, only sooner.
QUICK: dict[str, Any] = {
    "dispatcher": {"interval": 0.2},
    "activity_dispatcher": {"interval": 0.2},
    "recovery": {"interval": 0.2},
}
# What comes in time comes by a nudge: no poll runs while a test does.
SILENT: dict[str, Any] = {
    "dispatcher": {"interval": NEVER},
    "activity_dispatcher": {"interval": NEVER},
    "recovery": {"interval": NEVER},
    "signal_router": {"catch_up": NEVER},
}


class Node:
    """One server process, or several behind one port (`workers`)."""

    def __init__(
        self,
        name: str,
        tenants: dict[str, str],
        place: Path,
        *,
        options: dict[str, Any] | None = None,
        workers: int = 1,
        advertise: str | None = None,
        is_deaf: bool = False,
        ttl: float = TTL,
        migrations: str = "check",
        factory: str = "make",
    ) -> None:
        self.name = name
        self.place = place
        self._workers = workers
        self._factory = factory
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = place / f"{name}.jsonl"
        self._output = place / f"{name}.log"
        self._spans = place / f"{name}.spans"
        self._process: subprocess.Popen[bytes] | None = None
        chosen = {**QUICK, **(options or {})}
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CONTINUUM_")},
            **{f"CONTINUUM_TENANTS__{tenant}": url for tenant, url in tenants.items()},
            "CONTINUUM_NODE": name,
            "CONTINUUM_WORKFLOWS": "service.workflows,tests.cluster.host",
            "CONTINUUM_LEASE_TTL": str(ttl),
            "CONTINUUM_DRAIN_TIMEOUT": "5",
            "CONTINUUM_ADVERTISE_URL": advertise or f"{self.url}/continuum",
            "CONTINUUM_PEER_SECRET": SECRET,
            "CONTINUUM_MIGRATIONS": migrations,
            host.OPTIONS: json.dumps(chosen),
            host.LOG: str(self._log),
            host.TESTS: str(os.getpid()),
            host.SPANS: str(self._spans),
            host.LEDGER: str(place / "ledger"),
            host.DEAF: "1" if is_deaf else "",
        }

    def start(self) -> Self:
        """Start the process."""
        self._socket.listen(128)
        factory = f"tests.cluster.host:{self._factory}"
        handed = [] if self._workers > 1 else [self._socket.fileno()]
        command = [sys.executable, "-m", "tests.cluster.serve", str(self._socket.fileno()), factory]
        if self._workers > 1:
            self._socket.close()
            command = [sys.executable, "-m", "uvicorn", factory, "--factory", "--no-access-log"]
            command += ["--workers", str(self._workers), "--port", str(self.port)]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=handed,
                start_new_session=True,
            )
        self._socket.close()  # the process has its own
        return self

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    async def ready(self) -> Self:
        """Wait until it takes work."""
        async with httpx.AsyncClient() as client:

            async def is_ready() -> bool:
                assert self.is_alive, f"{self.name} ended:\n{self._output.read_text()[-3000:]}"
                try:
                    return (await client.get(f"{self.url}/readyz", timeout=5)).status_code == 200
                except httpx.HTTPError:
                    return False

            await eventually(is_ready, within=READY_SECONDS)
        return self

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, within: float = 20.0) -> int:
        """Wait for its end and return the exit code."""
        process = self._process
        assert process is not None
        return await asyncio.to_thread(process.wait, within)

    def end(self) -> None:
        """End it, whatever state it is in."""
        self._socket.close()
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    # --- what it says -------------------------------------------------------------------------------------------------

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return what its telemetry has told, of these names."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        told = [json.loads(line) for line in lines if line.endswith("}")]
        return [event for event in told if event["name"] in names]

    def spans(self) -> list[dict[str, Any]]:
        """Return the spans that it has finished, if it traces."""
        lines = self._spans.read_text().splitlines() if self._spans.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    async def told(self, name: str, **facts: Any) -> dict[str, Any]:
        """Wait until it has told of this, and return it."""

        def found() -> dict[str, Any] | None:
            for event in self.events(name):
                if all(event.get(key) == value for key, value in facts.items()):
                    return event
            return None

        event = await eventually(found, within=20)
        assert event is not None
        return event


class Cluster:
    """Some nodes on one database (or several), and a client to ask them."""

    def __init__(self, tenants: dict[str, str], place: Path) -> None:
        self.tenants = tenants
        self.place = place
        self.nodes: list[Node] = []
        self.http = httpx.AsyncClient(timeout=60)

    async def start(self, *names: str, **options: Any) -> list[Node]:
        """Start nodes together and wait until all take work."""
        nodes = [Node(name, self.tenants, self.place, **options).start() for name in names]
        self.nodes += nodes
        for node in nodes:
            await node.ready()
        return nodes

    async def close(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.end()
        await self.http.aclose()

    @property
    def ledger(self) -> list[str]:
        """What activities have written, in order: key and node."""
        path = self.place / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[Callable[[], None]]:
        """Let activities last until the block ends, or the function is called."""
        hold = self.place / "ledger.hold"
        hold.touch()
        try:
            yield lambda: hold.unlink(missing_ok=True)
        finally:
            hold.unlink(missing_ok=True)

    # --- the verbs over HTTP ------------------------------------------------------------------------------------------

    async def run(
        self,
        node: Node,
        workflow: str,
        *,
        tenant: str = "orders",
        headers: dict[str, str] | None = None,
        **body: Any,
    ) -> str:
        """Start a run."""
        url = f"{node.url}/continuum/{tenant}/runs"
        said = await self.http.post(url, json={"workflow": workflow, **body}, headers=headers)
        assert said.status_code == 202, said.text
        return str(said.json()["run_id"])

    async def signal(self, node: Node, run_id: str, payload: Any = None, *, tenant: str = "orders") -> None:
        """Signal "go"."""
        url = f"{node.url}/continuum/{tenant}/runs/{run_id}/signals/go"
        said = await self.http.post(url, json=payload)
        assert said.json() == {"status": "delivered"}, said.text

    async def result(self, node: Node, run_id: str, *, tenant: str = "orders", within: float = 30) -> Any:
        """Wait for a run's end and return what is said of it."""
        url = f"{node.url}/continuum/{tenant}/runs/{run_id}/await"
        async with asyncio.timeout(within):
            while True:
                said = await self.http.get(url, params={"timeout": min(within, 30)})
                if said.status_code != 202:
                    return said.json()

    async def state(self, node: Node, run_id: str, *, tenant: str = "orders") -> str:
        """Return a run's state."""
        return str((await self.http.get(f"{node.url}/continuum/{tenant}/runs/{run_id}")).json()["state"])

    async def types(self, node: Node, run_id: str, *, tenant: str = "orders") -> list[str]:
        """Return the types of a run's events."""
        said = await self.http.get(f"{node.url}/continuum/{tenant}/runs/{run_id}/events")
        return [event["type"] for event in said.json()["items"]]
