"""AES-256-GCM (NIST SP 800-38D) around every stored payload.

What a payload belongs to (run, kind, name) is authenticated with it, so that nobody with access to the database can
swap one payload for another. Keys have names, stored with the payload: new ones are written with the primary key, old
ones are opened with the key they name, and a key may be dropped once nothing written with it is kept any more.

    payload = length of the key's name (1 byte) | the name | nonce (12 bytes, random) | ciphertext and tag
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from continuum.codec import PayloadContext
from continuum.errors import ConfigurationError, DurableValueError

KEY_BYTES = 32
NONCE_BYTES = 12
NAME_MAX = 255


class AesGcmCodec:
    """A `PayloadCodec` that encrypts.

    Args:
        keys: name → 32 random bytes (`os.urandom(32)`), kept wherever the host keeps its secrets.
        primary: the name of the key that new payloads are written with.

    Raises:
        ConfigurationError: a key has another length, or `primary` names none of them.
    """

    def __init__(self, keys: Mapping[str, bytes], *, primary: str) -> None:
        if primary not in keys:
            raise ConfigurationError(f"primary={primary!r} names none of the keys: {', '.join(keys) or 'none'}")
        for name, key in keys.items():
            if len(key) != KEY_BYTES:
                raise ConfigurationError(f"key {name!r} has {len(key)} bytes; AES-256 needs {KEY_BYTES}")
            if not 0 < len(name.encode()) <= NAME_MAX:
                raise ConfigurationError(f"a key's name has 1 to {NAME_MAX} bytes, not {name!r}")
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}
        self._primary = primary.encode()

    def encode(self, payload: bytes, context: PayloadContext) -> bytes:
        """Encrypt."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self._primary.decode()].encrypt(nonce, payload, _authenticated(context))
        return bytes([len(self._primary)]) + self._primary + nonce + sealed

    def decode(self, payload: bytes, context: PayloadContext) -> bytes:
        """Decrypt.

        Raises:
            DurableValueError: the key is not known, or the payload is not what was written there.
        """
        length = payload[0]
        name, rest = payload[1 : 1 + length].decode(errors="replace"), payload[1 + length :]
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise DurableValueError(f"it was written with key {name!r}, which is not among the keys given")
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _authenticated(context))
        except InvalidTag as error:
            raise DurableValueError("it was changed, or belongs somewhere else") from error


def _authenticated(context: PayloadContext) -> bytes:
    return "\x00".join((context.run_id, context.kind, context.name or "")).encode()
