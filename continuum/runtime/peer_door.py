"""What this process does when a peer calls. The HTTP framework is elsewhere: here are headers and bytes, and an answer.

`wake`: read the inboxes of these runs, or claim them if nobody holds them any more. `peer`: cancel (wake, and tell the
caller how it ended), await (tell the caller when it ends), ended (look at runs that somebody here waits for). Neither
carries anything that the database does not say: who forges or repeats a call, if he could, would cause a query.

A call is judged before it is read: unsigned, tampered, stale: 401. One that is meant for another process: 421.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from continuum.model.runs import Ending
from continuum.runtime.node import Node
from continuum.runtime.pubsub import PubSub
from continuum.runtime.signing import TO, Call, Keys
from continuum.runtime.wakes import Wakes

BODY_MAX = 1_048_576  # bytes; ours have 160 kB at most
WATCH_SECONDS = 60.0  # whoever still waits asks again before
WATCHED_MAX = 100_000  # runs with askers; whoever asks for one more polls

Road = Literal["wake", "peer"]


class Wake(msgspec.Struct):
    """The body of a wake."""

    runs: list[str]


class Said(msgspec.Struct):
    """The body of a `peer` call; `sender` is told about endings at `url`."""

    sender: str = msgspec.field(name="from")
    url: str | None = None
    cancels: list[str] = msgspec.field(name="cancel", default_factory=list)
    awaits: list[str] = msgspec.field(name="await", default_factory=list)
    ended: list[str] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, what a refusal says, and the body of a successful answer."""

    status: int
    detail: str = ""
    body: bytes = b""


class Askers:
    """Who is to be told of the ends of runs that live here; whoever does not ask again in time is forgotten."""

    def __init__(self, *, node: Node, pubsub: PubSub, tell: Callable[[str, str, str], object]) -> None:
        self._node = node
        self._tell = tell
        self._askers: dict[str, dict[str, tuple[str, float]]] = {}  # run id → asker → its URL, and until when
        self._tidied_at = 0.0
        pubsub.subscribe(self._hear)

    def __len__(self) -> int:
        return len(self._askers)

    def add(self, run_id: str, asker: str, url: str) -> bool:
        """Note that somebody asks; False: too many do."""
        now = self._node.clock.monotonic()
        self._tidy(now)
        askers = self._askers.get(run_id)
        if askers is None:
            if len(self._askers) >= WATCHED_MAX:
                return False
            askers = self._askers[run_id] = {}
        askers[asker] = (url, now + WATCH_SECONDS)
        return True

    def _hear(self, ending: Ending) -> None:
        if ending.run_id in self._askers:
            for asker, (url, _) in self._askers.pop(ending.run_id).items():
                self._tell(ending.run_id, asker, url)

    def _tidy(self, now: float) -> None:
        if now - self._tidied_at < WATCH_SECONDS:
            return
        self._tidied_at = now
        for run_id, askers in tuple(self._askers.items()):
            kept = {asker: known for asker, known in askers.items() if known[1] > now}
            if kept:
                self._askers[run_id] = kept
            else:
                del self._askers[run_id]


class PeerDoor:
    """Judges and obeys the calls of peers."""

    def __init__(
        self,
        *,
        node: Node,
        keys: Callable[[], Keys],
        lives_here: Callable[[str], bool],
        hears_endings: bool,
        askers: Askers,
        wakes: Wakes,
        told: Callable[[list[str]], object],
    ) -> None:
        self._node = node
        self._keys = keys
        self._lives_here = lives_here
        self._hears_endings = hears_endings
        self._askers = askers
        self._wakes = wakes
        self._told = told

    def receive(self, road: Road, headers: Mapping[str, str], body: bytes) -> Answer:
        """Do what a call says, if it is to be believed. `headers` ignores case, or has lower-case names."""
        to = headers.get(TO.lower(), "")
        call = Call(f"/{self._node.instance}/{road}", to, body)
        refusal = self._keys().judge(call, headers, self._node.database_now())
        if refusal is not None:
            self._node.emit("peer.refused", reason=refusal.name.lower())
            return Answer(401, refusal.value)
        if not self._node.is_me(to):
            return Answer(421, "this process is not the owner that the call is meant for")
        try:
            if road == "wake":
                self._wake(msgspec.json.decode(body, type=Wake).runs)
                return Answer(204)
            return self._peer(msgspec.json.decode(body, type=Said))
        except msgspec.DecodeError as error:  # signed, so it is a newer or older version of us
            return Answer(400, str(error))

    def _wake(self, runs: list[str]) -> None:
        here = [run_id for run_id in runs if self._lives_here(run_id)]
        if here:
            self._wakes.read_inbox("peer")
        if len(here) < len(runs):  # given up since it was looked up: it can be claimed
            self._wakes.claim_runs()

    def _peer(self, said: Said) -> Answer:
        if said.cancels:
            self._wake(said.cancels)
        elsewhere = [run_id for run_id in (*said.cancels, *said.awaits) if not self._watch(run_id, said)]
        if said.ended:
            self._told(said.ended)
        return Answer(200, body=json.dumps({"elsewhere": elsewhere}).encode())

    def _watch(self, run_id: str, said: Said) -> bool:
        if not self._lives_here(run_id) or not self._hears_endings:
            return False
        return said.url is not None and self._askers.add(run_id, said.sender, said.url)
