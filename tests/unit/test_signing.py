"""What a signature covers, and for how long."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from continuum.errors import ConfigurationError
from continuum.runtime.signing import WINDOW_SECONDS, Call, Keys, Refusal, keys_of

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
CALL = Call("/orders/wake", "n1/orders/boot/1", b'{"runs":["r"]}')
KEYS = keys_of("secret", "one")


def signed(keys: Keys = KEYS, call: Call = CALL, at: datetime = NOW) -> dict[str, str]:
    return {name.lower(): value for name, value in keys.sign(call, at).items()}


def test_what_was_signed_with_a_shared_secret_is_believed() -> None:
    assert KEYS.judge(CALL, signed(), NOW) is None
    assert signed()["continuum-to"] == CALL.to


@pytest.mark.parametrize(
    "changed",
    [
        replace(CALL, body=b'{"runs":["s"]}'),
        replace(CALL, path="/billing/wake"),
        replace(CALL, path="/orders/peer"),
        replace(CALL, method="PUT"),
        replace(CALL, to="n2/orders/boot/1"),
    ],
)
def test_nothing_of_a_call_can_be_changed(changed: Call) -> None:
    assert KEYS.judge(changed, signed(), NOW) is Refusal.TAMPERED


def test_the_moment_cannot_be_changed_either() -> None:
    headers = signed(at=NOW - timedelta(hours=1))
    headers["continuum-time"] = signed()["continuum-time"]
    assert KEYS.judge(CALL, headers, NOW) is Refusal.TAMPERED


@pytest.mark.parametrize("missing", ["continuum-time", "continuum-signature"])
def test_a_call_without_signature_or_moment_is_unsigned(missing: str) -> None:
    headers = signed()
    del headers[missing]
    assert KEYS.judge(CALL, headers, NOW) is Refusal.UNSIGNED


@pytest.mark.parametrize(("age", "refusal"), [(WINDOW_SECONDS - 1, None), (WINDOW_SECONDS + 1, Refusal.STALE)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_call_is_believed_within_the_window_only(age: float, refusal: Refusal | None, sign: int) -> None:
    assert KEYS.judge(CALL, signed(at=NOW - timedelta(seconds=sign * age)), NOW) is refusal


@pytest.mark.parametrize("moment", ["nan", "inf", "-inf", "", "yesterday"])
def test_a_moment_that_is_no_number_is_stale_though_signed(moment: str) -> None:
    from continuum.runtime import signing

    headers = {"continuum-time": moment, "continuum-signature": signing._signature(b"one", CALL, moment)}
    assert KEYS.judge(CALL, headers, NOW) is Refusal.STALE


def test_another_secret_is_not_believed() -> None:
    assert KEYS.judge(CALL, signed(keys_of("secret", "two")), NOW) is Refusal.TAMPERED
    assert KEYS.judge(CALL, {**signed(), "continuum-signature": "Ünsinn"}, NOW) is Refusal.TAMPERED


def test_no_secret_believes_nothing() -> None:
    assert not Keys()
    assert Keys().judge(CALL, signed(Keys()), NOW) is Refusal.UNSIGNED
    assert Keys().judge(CALL, signed(), NOW) is Refusal.TAMPERED


def test_secrets_are_rotated_without_a_gap() -> None:
    old, both, new = keys_of("s", "old"), keys_of("s", ["new", "old"]), keys_of("s", [b"new"])
    assert both.judge(CALL, signed(old), NOW) is None
    assert both.judge(CALL, signed(both), NOW) is None
    assert new.judge(CALL, signed(both), NOW) is None
    assert new.judge(CALL, signed(old), NOW) is Refusal.TAMPERED
    assert old | new == Keys((b"old", b"new"))


def test_insecure_believes_what_is_not_signed_unless_there_is_a_secret() -> None:
    assert Keys(insecure=True).judge(CALL, {}, NOW) is None
    assert Keys((b"one",), insecure=True).judge(CALL, {}, NOW) is Refusal.UNSIGNED


@pytest.mark.parametrize("value", ["", b"", [], [""], 7, ["a", 7]])
def test_a_secret_is_text_or_bytes_or_several(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"peers\.secret"):
        keys_of("peers.secret", value)


def test_secrets_are_not_shown() -> None:
    assert "one" not in repr(KEYS)
