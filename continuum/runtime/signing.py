"""Signs what peers send each other, and judges what arrives.

A call is signed over its method, its path, its body, the moment and the owner that it is meant for, so that none of
them can be changed or sent to somebody else. The path is what follows the mount point (`/orders/wake`): a proxy may
rewrite the rest. The moment is the database's, which all nodes share: hosts' clocks may differ by any amount. A call
that is heard again within the window does nothing that the first did not do: all calls are hints about what the
database says.

Keys are rotated without a gap: give every node `(new, old)`, the first signs and each of them is accepted, and drop the
old one when all have been restarted.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from continuum.errors import ConfigurationError

TO, TIME, SIGNATURE = "Continuum-To", "Continuum-Time", "Continuum-Signature"
WINDOW_SECONDS = 30.0  # to either side: transport and two readings of one clock need far less
LABEL = b"continuum-peer-v1"  # so that the same secret used elsewhere signs nothing of ours


class Refusal(Enum):
    """Why a call is not believed."""

    UNSIGNED = "the call is not signed"
    TAMPERED = "the signature does not fit the call"
    STALE = "the call was signed too long ago, or in the future"


@dataclass(frozen=True, slots=True)
class Call:
    """What is signed."""

    path: str  # what follows the mount point: "/orders/wake"
    to: str
    body: bytes
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets shared by the nodes of an instance: the first signs, each is accepted; none: nothing is believed.

    `insecure` believes everything, and is for networks that nobody else is in.
    """

    secrets: tuple[bytes, ...] = ()
    insecure: bool = False

    def __repr__(self) -> str:
        return f"<Keys: {len(self.secrets)}{', insecure' if self.insecure else ''}>"

    def __bool__(self) -> bool:
        return bool(self.secrets) or self.insecure

    def __or__(self, others: Keys) -> Keys:
        """Return both; ours stay first."""
        return Keys(tuple(dict.fromkeys((*self.secrets, *others.secrets))), self.insecure or others.insecure)

    def sign(self, call: Call, now: datetime) -> dict[str, str]:
        """Return the headers of a call."""
        headers = {TO: call.to, TIME: f"{now.timestamp():.3f}"}
        if self.secrets:
            headers[SIGNATURE] = _signature(self.secrets[0], call, headers[TIME])
        return headers

    def judge(self, call: Call, headers: Mapping[str, str], now: datetime) -> Refusal | None:
        """Say why a call is not to be believed; None if it is. `headers` has lower-case names, or ignores case."""
        if self.insecure and not self.secrets:
            return None
        moment, given = headers.get(TIME.lower()), headers.get(SIGNATURE.lower())
        if moment is None or given is None:
            return Refusal.UNSIGNED
        fits = False
        for secret in self.secrets:  # all of them, so that the time taken says nothing about which one fits
            fits |= hmac.compare_digest(_signature(secret, call, moment).encode(), given.encode())
        if not fits:
            return Refusal.TAMPERED
        age_seconds = now.timestamp() - _number(moment)
        return None if abs(age_seconds) <= WINDOW_SECONDS else Refusal.STALE  # a NaN is stale as well


def keys_of(name: str, value: object) -> Keys:
    """Return the keys that an option names: None, a text or bytes, or several of these, the signing one first.

    Raises:
        ConfigurationError: it is something else, or a secret is empty.
    """
    if value is None:
        return Keys()
    given = value if isinstance(value, list | tuple) else [value]
    encoded = [one.encode() if isinstance(one, str) else one for one in given]
    secrets = tuple(one for one in encoded if isinstance(one, bytes) and one)
    if not secrets or len(secrets) < len(encoded):
        raise ConfigurationError(f"{name} must be a secret (str or bytes, not empty), or a list of them, newest first")
    return Keys(secrets)


def _signature(secret: bytes, call: Call, moment: str) -> str:
    digest = hashlib.sha256(call.body).hexdigest()
    signed = f"{call.method}\n{call.path}\n{call.to}\n{moment}\n{digest}".encode()
    return hmac.new(secret, LABEL + b"\n" + signed, hashlib.sha256).hexdigest()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
