"""When a blocked run is tried again."""

import pytest

from continuum.runtime.ledger import backoff_after


@pytest.mark.parametrize(
    ("stood_seconds", "backoff_seconds"),
    [(-5.0, 10.0), (0.0, 10.0), (100.0, 10.0), (600.0, 60.0), (3_000.0, 300.0), (86_400.0, 300.0)],
)
def test_a_blocked_run_waits_in_proportion_to_how_long_it_has_stood_still(
    stood_seconds: float, backoff_seconds: float
) -> None:
    assert backoff_after(stood_seconds) == backoff_seconds
