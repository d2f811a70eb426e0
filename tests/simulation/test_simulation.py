"""Two hundred seeds, each a story that ends well; and the same seed tells the same story, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.running import simulate

SEEDS = 200
CHUNK = 10  # seeds in one test: enough tests for two workers to share evenly, few enough to be read


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_run_ends_and_nothing_is_lost_or_doubled(first: int) -> None:
    outcomes = [simulate(seed) for seed in range(first, first + CHUNK)]
    reports = [outcome.report() for outcome in outcomes if outcome.violations]
    assert not reports, "\n\n".join(reports)


@pytest.mark.parametrize("seed", [7, 113])
def test_the_same_seed_gives_the_same_log(seed: int) -> None:
    one, other = simulate(seed), simulate(seed)
    assert one.lines == other.lines
    assert len(one.lines) > 50


def test_the_log_does_not_depend_on_the_hashes_of_a_process() -> None:
    logs = [_log_of_a_process(hash_seed) for hash_seed in ("1", "2")]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 5


def test_a_failing_seed_says_how_to_see_it_again() -> None:
    outcome = simulate(3)
    outcome.violations.append("it rains")
    assert "python -m tests.simulation --seed 3 -v" in outcome.report()


def _log_of_a_process(hash_seed: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", "20", "--seeds", "5", "--digest"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return done.stdout.splitlines()
