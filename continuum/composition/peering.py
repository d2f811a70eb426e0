"""The parts of an instance that talk with its peers, and the secrets that they share.

A secret is given to `children(peers={"secret": ...})`, or to a router, which lends it to the instances that it serves
for as long as the application that mounts it lives. Whether there is one is asked when an instance starts: a URL that is
advertised without a secret behind it would let anybody on the network wake and watch runs.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Collection
from dataclasses import dataclass

from continuum.composition.options import Settings
from continuum.errors import ConfigurationError
from continuum.runtime.awaiting import Awaiting
from continuum.runtime.component import Component
from continuum.runtime.execution import Execution
from continuum.runtime.node import Node
from continuum.runtime.peer_door import Askers, PeerDoor
from continuum.runtime.peers import PeerJournal, Peers
from continuum.runtime.pubsub import PubSub
from continuum.runtime.registry import Registry
from continuum.runtime.signing import Keys, keys_of
from continuum.runtime.wakes import Wakes


@dataclass(frozen=True, slots=True)
class Loan:
    """Keys that a router lends: to the named instances, or to all."""

    router: weakref.ref[object]
    names: frozenset[str] | None
    keys: Keys


_loans: list[Loan] = []


def lend(router: object, names: Collection[str] | None, secret: object, *, insecure: bool) -> None:
    """Let instances use a router's secret while that router lives.

    Raises:
        ConfigurationError: it is neither a text nor bytes nor several of these.
    """
    own = keys_of("peer_secret", secret)
    keys = Keys(own.secrets, insecure)
    if keys:
        _loans.append(Loan(weakref.ref(router), None if names is None else frozenset(names), keys))


def keys_for(settings: Settings) -> Keys:
    """Return an instance's own keys and those that are lent to it."""
    keys = _own_keys(settings)
    for loan in tuple(_loans):
        if loan.router() is None:
            _loans.remove(loan)
        elif loan.names is None or settings.name in loan.names:
            keys |= loan.keys
    return keys


def _own_keys(settings: Settings) -> Keys:
    options = settings.part("peers")
    return Keys(options["secret"].secrets if options["secret"] is not None else (), options["insecure"])


def require_keys(settings: Settings) -> None:
    """Check that peers can tell who calls.

    Raises:
        ConfigurationError: a URL is advertised, and there is no secret.
    """
    if not settings.on("peers") or settings.values["advertise_url"] is None or _own_keys(settings):
        return
    gc.collect()  # an application that is gone lends nothing, and applications are cyclic garbage; starting is rare
    if not keys_for(settings):
        raise ConfigurationError(
            f"instance {settings.name!r} advertises a URL to its peers and has no secret to know them by: give all nodes "
            'the same, children(peers={"secret": ...}) or router(peer_secret=...). On a network that nobody else is in, '
            'children(peers={"insecure": True}) or router(insecure_peers=True); without forwarding, children(peers=False)'
        )


class Peering:
    """What calls peers, and what answers them; both are there when peers are off, and nobody calls them."""

    def __init__(
        self,
        settings: Settings,
        *,
        node: Node,
        journal: PeerJournal,
        registry: Registry[Execution],
        pubsub: PubSub,
        wakes: Wakes,
        awaiting: Awaiting,
    ) -> None:
        options = settings.part("peers")
        self.peers = Peers(
            f"{settings.name}.peers",
            node=node,
            journal=journal,
            wakes=wakes,
            keys=lambda: keys_for(settings),
            timeout=options["timeout"],
            concurrency=options["concurrency"],
            client=options["client"],
        )
        self.askers = Askers(node=node, pubsub=pubsub, tell=self.peers.tell_ending)
        self.door = PeerDoor(
            node=node,
            keys=lambda: keys_for(settings),
            lives_here=lambda run_id: run_id in registry,
            hears_endings=settings.on("pubsub"),
            askers=self.askers,
            wakes=wakes,
            told=awaiting.told,
        )
        self.peers.elsewhere = awaiting.elsewhere
        wakes.forward = self.peers.forward
        wakes.watch_ending = self.peers.watch
        calls = settings.values["advertise_url"] is not None or bool(_own_keys(settings))
        self.component = (
            self.peers if calls else Component(self.peers.name)
        )  # without a URL and a secret: nobody to call
