"""The AES-GCM payload codec."""

from __future__ import annotations

import pytest

from continuum.codec import PayloadContext
from continuum.encryption import AesGcmCodec
from continuum.errors import ConfigurationError, DurableValueError

OLD, NEW = b"o" * 32, b"n" * 32
HERE = PayloadContext("01890000-0000-7000-8000-000000000000", "activity_completed", "charge")


def test_what_was_encrypted_comes_back_and_cannot_be_read_in_between() -> None:
    codec = AesGcmCodec({"new": NEW}, primary="new")
    sealed = codec.encode(b'"a secret"', HERE)
    assert b"secret" not in sealed
    assert codec.decode(sealed, HERE) == b'"a secret"'
    assert sealed != codec.encode(b'"a secret"', HERE), "equal payloads do not look equal"


def test_a_rotated_key_opens_what_the_old_one_wrote() -> None:
    sealed = AesGcmCodec({"old": OLD}, primary="old").encode(b"1", HERE)
    assert AesGcmCodec({"old": OLD, "new": NEW}, primary="new").decode(sealed, HERE) == b"1"
    with pytest.raises(DurableValueError, match="'old', which is not among"):
        AesGcmCodec({"new": NEW}, primary="new").decode(sealed, HERE)


@pytest.mark.parametrize(
    "elsewhere",
    [
        PayloadContext("01890000-0000-7000-8000-000000000001", HERE.kind, HERE.name),
        PayloadContext(HERE.run_id, "signal", HERE.name),
        PayloadContext(HERE.run_id, HERE.kind, "refund"),
    ],
)
def test_a_payload_moved_elsewhere_does_not_open(elsewhere: PayloadContext) -> None:
    codec = AesGcmCodec({"new": NEW}, primary="new")
    with pytest.raises(DurableValueError, match="belongs somewhere else"):
        codec.decode(codec.encode(b"1", HERE), elsewhere)


def test_a_changed_payload_does_not_open() -> None:
    codec = AesGcmCodec({"new": NEW}, primary="new")
    sealed = bytearray(codec.encode(b"1", HERE))
    sealed[-1] ^= 1
    with pytest.raises(DurableValueError, match="changed"):
        codec.decode(bytes(sealed), HERE)


@pytest.mark.parametrize(
    ("keys", "primary", "message"),
    [({"a": b"short"}, "a", "AES-256 needs 32"), ({"a": NEW}, "b", "names none"), ({"": NEW}, "", "1 to 255")],
)
def test_unusable_keys_are_refused(keys: dict[str, bytes], primary: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AesGcmCodec(keys, primary=primary)
