"""Calls the process that owns a run: to wake it, to cancel it, to hear of its end.

Peers are found in the `owners` table; the network is the one that the hosts' HTTP servers are already on. Every call is
a hint about what the database says, and may be lost: behind it stand LISTEN and the polls. So nothing is sent twice and
nothing waits for an answer.

What is to be said to one peer gathers in its box while the call before is on the wire: a burst of wakes is a few calls.
A peer that does not answer rests, each time for longer, and its wakes go by NOTIFY meanwhile. A process that is not the
owner a call names answers 421: several processes stand behind that URL (the workers of one server), and until it is
tried again everything for it goes by NOTIFY at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Literal, Protocol

from continuum.errors import ContinuumError
from continuum.journal.port import OwnerJournal, ReadJournal
from continuum.runtime.component import Component
from continuum.runtime.node import Node, node_of
from continuum.runtime.signing import Call, Keys
from continuum.runtime.tracing import ambient_headers
from continuum.runtime.transport import HttpClient, new_client
from continuum.runtime.wakes import Wakes
from continuum.telemetry import heard
from continuum.telemetry.saying import say

logger = logging.getLogger(__name__)

RUNS_MAX = 1_000  # run ids in one call: 40 kB
BOX_MAX = 10_000  # run ids that wait for one peer; what comes on top goes by NOTIFY
CONNECT_SECONDS = 0.5
REST_SECONDS, REST_MAX_SECONDS = 0.5, 30.0  # after the first call that failed, and after many
SHARED_SECONDS = 60.0  # a URL is tried again: its process may have been started anew, as the only one
URLS_MAX = 10_000  # owners whose URL is remembered
UNKNOWN_SECONDS = 5.0  # before the table is asked again about an owner that was not in it

Verb = Literal["wake", "cancel", "await", "ended"]
WAKING: tuple[Verb, ...] = ("wake", "cancel")  # what another road must carry if this one fails
PEER: tuple[Verb, ...] = ("cancel", "await", "ended")  # what travels in one call to `/peer`


class Trouble(Enum):
    """Why a call did not arrive."""

    SHARED = "shared"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


@dataclass(slots=True)
class Box:
    """What is to be said to one peer."""

    to: str
    url: str | None
    said: dict[Verb, dict[str, None]] = field(default_factory=dict)
    sender: asyncio.Task[None] | None = None

    def put(self, verb: Verb, run_id: str) -> bool:
        """Add a run; False: the box is full."""
        runs = self.said.setdefault(verb, {})
        if len(runs) >= BOX_MAX:
            return False
        runs[run_id] = None
        return True

    def take(self, verb: Verb) -> list[str]:
        """Take out what one call carries."""
        runs = self.said.get(verb, {})
        taken = list(runs)[:RUNS_MAX]
        for run_id in taken:
            del runs[run_id]
        return taken

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to be said."""
        return not any(self.said.values())


@dataclass(slots=True)
class Standing:
    """What experience says about a URL."""

    failures: int = 0
    rests_until: float = 0.0


class PeerJournal(OwnerJournal, ReadJournal, Protocol):
    """Who is where, and what time it is."""


class Peers(Component):
    """Sends hints to peers; one HTTP client per instance."""

    def __init__(
        self,
        name: str,
        *,
        node: Node,
        journal: PeerJournal,
        wakes: Wakes,
        keys: Callable[[], Keys],
        timeout: float,
        concurrency: int,
        client: HttpClient | None,
    ) -> None:
        super().__init__(name)
        self._node = node
        self._whose = {"instance": node.instance}  # of log lines
        self._journal = journal
        self._wakes = wakes
        self._keys = keys
        self._timeout = timeout
        self._concurrency = concurrency
        self._given = client
        self._client: HttpClient | None = None
        self._room = asyncio.Semaphore(concurrency)
        self._boxes: dict[str, Box] = {}
        self._standings: dict[str, Standing] = {}
        self._urls: dict[str, tuple[str | None, float]] = {}  # owner → its URL, and when we learned it
        self.elsewhere: Callable[[list[str]], object] = lambda _runs: None  # a peer was asked about runs it has not

    async def start(self) -> None:
        """Open the client."""
        if self._client is None:
            self._room = asyncio.Semaphore(self._concurrency)
            self._client = self._given or new_client(
                connections=self._concurrency, timeout=self._timeout, connect_timeout=CONNECT_SECONDS
            )
            if self._node.owner is None:  # nothing has told it the database's time yet, which calls are signed with
                with contextlib.suppress(ContinuumError):
                    self._node.stamp(await self._journal.now())

    async def stop(self) -> None:
        """Drop what was not said; close the client if it is ours."""
        client, self._client = self._client, None
        senders = [box.sender for box in self._boxes.values() if box.sender is not None]
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        self._boxes.clear()
        if client is not None and client is not self._given:
            await client.aclose()

    # --- what can be said ---------------------------------------------------------------------------------------------

    def forward(self, run_id: str, owner: str, url: str | None, *, cancels: bool) -> bool:
        """Tell the owner of a run that there is a message for it; False: take another road."""
        return url is not None and self._say("cancel" if cancels else "wake", run_id, owner, url)

    def watch(self, run_id: str, owner: str) -> None:
        """Ask the owner of a run to tell us when it ends."""
        if self._node.advertise_url is not None:  # else there is no way for it to tell us
            self._say("await", run_id, owner, None)

    def tell_ending(self, run_id: str, asker: str, url: str) -> None:
        """Tell who asked that a run has ended."""
        self._say("ended", run_id, asker, url)

    def _say(self, verb: Verb, run_id: str, to: str, url: str | None) -> bool:
        if self._client is None or (url is not None and not self._may_call(url)):
            return False
        box = self._boxes.setdefault(to, Box(to, url))
        box.url = url or box.url
        if not box.put(verb, run_id):
            return False
        if box.sender is None:
            box.sender = asyncio.get_running_loop().create_task(self._empty(box), name=f"{self.name}.send")
        return True

    # --- sending ------------------------------------------------------------------------------------------------------

    async def _empty(self, box: Box) -> None:
        try:
            while not box.is_empty:
                await self._send(box, ("wake",))
                await self._send(box, PEER)
        finally:
            if self._boxes.get(box.to) is box:
                del self._boxes[box.to]

    async def _send(self, box: Box, verbs: tuple[Verb, ...]) -> None:
        """Make one call with what has gathered for it."""
        runs = {verb: taken for verb in verbs if (taken := box.take(verb))}
        if not runs:
            return
        url = box.url or await self._url_of(box.to)
        if url is None or self._client is None or not self._may_call(url):
            self._by_another_road(runs)
            return
        async with self._room:
            began = self._node.clock.monotonic()
            trouble = await self._call(self._client, box.to, url, runs)
        facts = {"to_node": node_of(box.to), "url": url, "verbs": tuple(runs)}
        count = sum(map(len, runs.values()))
        if trouble is None:
            self._standings.pop(url, None)
            took = self._node.clock.monotonic() - began
            self._node.emit("peer.called", {"runs": count, "duration_seconds": took}, **facts)
            self._forwarded(box.to, runs)
        else:
            rest = self._troubled(url, trouble)
            self._node.emit("peer.failed", {"runs": count, "rest_seconds": rest}, **facts, reason=trouble.value)
            self._by_another_road(runs)

    async def _call(self, client: HttpClient, to: str, url: str, runs: dict[Verb, list[str]]) -> Trouble | None:
        path = "wake" if "wake" in runs else "peer"
        said: dict[str, object] = {"from": self._node.address, "url": self._node.advertise_url}
        said |= {("runs" if verb == "wake" else verb): run_ids for verb, run_ids in runs.items()}
        call = Call(f"/{self._node.instance}/{path}", to, json.dumps(said).encode())
        headers = {
            "Content-Type": "application/json",
            **ambient_headers(),  # of whoever was the first to have something to say
            **self._keys().sign(call, self._node.database_now()),
        }
        try:
            async with self._node.clock.timeout(self._timeout):
                response = await client.request(
                    call.method, url.rstrip("/") + call.path, content=call.body, headers=headers, timeout=self._timeout
                )
            if response.status_code == HTTPStatus.OK:
                self.elsewhere(list(json.loads(response.content)["elsewhere"]))
        except Exception as error:  # noqa: BLE001  # any client may be given, and so any error come: the call was a hint
            say(logger, logging.DEBUG, "peer %s did not answer: %r", url, error, extra=self._whose)
            return Trouble.UNREACHABLE
        match response.status_code:
            case HTTPStatus.OK | HTTPStatus.NO_CONTENT:
                return None
            case HTTPStatus.MISDIRECTED_REQUEST:
                return Trouble.SHARED
            case _:
                return Trouble.REFUSED

    def _forwarded(self, to: str, runs: dict[Verb, list[str]]) -> None:
        if "run.forwarded" in heard:
            for verb in WAKING:
                for run_id in runs.get(verb, ()):
                    self._node.emit("run.forwarded", run_id=run_id, from_node=self._node.name, to_node=node_of(to))

    def _by_another_road(self, runs: dict[Verb, list[str]]) -> None:
        """Have NOTIFY carry what must be heard soon; the rest is found by polling."""
        for verb in WAKING:
            for run_id in runs.get(verb, ()):
                self._wakes.tell_others(run_id)

    # --- who is where, and how it stands ------------------------------------------------------------------------------

    async def _url_of(self, owner: str) -> str | None:
        now = self._node.clock.monotonic()
        url, learned_at = self._urls.get(owner, (None, -UNKNOWN_SECONDS))
        if url is None and now - learned_at >= UNKNOWN_SECONDS:
            try:
                living = await self._journal.owners()
            except Exception as error:  # noqa: BLE001  # a hint is not sent; whatever is wrong, others will say it
                say(logger, logging.DEBUG, "the owners could not be read: %r", error, extra=self._whose)
                return None
            if len(self._urls) > URLS_MAX:
                self._urls.clear()
            self._urls[owner] = (None, now)
            self._urls.update((one.owner, (one.advertise_url, now)) for one in living)
            url = self._urls[owner][0]
        return url

    def _may_call(self, url: str) -> bool:
        standing = self._standings.get(url)
        return standing is None or standing.rests_until <= self._node.clock.monotonic()

    def _troubled(self, url: str, trouble: Trouble) -> float:
        """Let a URL rest, and return for how long."""
        standing = self._standings.setdefault(url, Standing())
        standing.failures += 1
        rest: float = SHARED_SECONDS
        if trouble is not Trouble.SHARED:
            rest = min(REST_SECONDS * 2.0 ** min(standing.failures - 1, 16), REST_MAX_SECONDS)
            rest *= self._node.draw.uniform(0.5, 1.0)
        standing.rests_until = self._node.clock.monotonic() + rest
        if trouble is Trouble.REFUSED and standing.failures == 1:
            say(
                logger,
                logging.WARNING,
                "peer %s refuses our calls: do all nodes share a secret, and is its router mounted there?",
                url,
                extra=self._whose,
            )
        return rest
