"""Runs the suite group by group and sums it up: `python tools/run_tests.py [GROUP ...]`.

A group is a folder below `tests/`, one pytest process each, so that a group that hangs, crashes or spoils its process
costs only itself. `rest` is everything that no other group names: a new folder is run from its first day on. Counts
come from the JUnit files that pytest writes; the last line printed is always `N passed, N failed, N skipped`.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
RESULTS = ROOT / ".test-results"
PATIENCE = 5  # times the budget: a machine may be slow or shared, but a group that waits for ever must end


@dataclass(frozen=True, slots=True)
class Group:
    """A folder of tests, the time it should take on two cores, and how many processes share its tests."""

    name: str
    budget_seconds: int
    workers: int = 2
    options: tuple[str, ...] = ()


# Three processes on two cores where tests wait for processes, servers and timers as much as they compute.
# The replay core stands or falls with its branches: each of them is taken by a unit test, without a single pragma.
COVERED = ("--cov=continuum.replay", "--cov-branch", "--cov-fail-under=100", "--cov-report=term-missing:skip-covered")

GROUPS = (
    Group("unit", 60, options=COVERED),
    Group("journal", 60, workers=3),
    Group("components", 60, workers=3),
    Group("scenarios", 180, workers=3),
    Group("kill", 120, workers=3),
    # Starts several node processes per test and measures them: nothing beside it. Plain `pytest` leaves it out.
    Group("cluster", 180, workers=0, options=("-m", "cluster")),
    Group("simulation", 120),
    Group("rest", 180, workers=3),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a group came to."""

    group: Group
    passed: int
    failed: int
    skipped: int
    seconds: float
    remark: str = ""


def main(names: list[str]) -> int:
    """Run the named groups, or all, and return the exit code."""
    unknown = set(names) - {group.name for group in GROUPS}
    if unknown:
        sys.exit(
            f"No such group: {', '.join(sorted(unknown))}. There are: {', '.join(group.name for group in GROUPS)}."
        )
    RESULTS.mkdir(exist_ok=True)
    outcomes = []
    for group in GROUPS:
        if names and group.name not in names:
            continue
        if paths := _paths(group):
            outcomes.append(_run(group, paths))
        else:
            where = (
                "no test stands outside of the groups" if group.name == "rest" else f"there is no tests/{group.name}"
            )
            print(f"==> {group.name}: {where}, skipped", flush=True)
    _report(outcomes)
    return 0 if outcomes and not any(outcome.failed for outcome in outcomes) else 1


def _paths(group: Group) -> list[Path]:
    if group.name != "rest":
        return [path for path in [TESTS / group.name] if path.is_dir()]
    named = {each.name for each in GROUPS if each.name != "rest"}
    folders = [path for path in sorted(TESTS.iterdir()) if path.is_dir() and path.name not in named]
    return [*(path for path in folders if any(path.rglob("test_*.py"))), *sorted(TESTS.glob("test_*.py"))]


def _run(group: Group, paths: list[Path]) -> Outcome:
    junit = RESULTS / f"{group.name}.xml"
    junit.unlink(missing_ok=True)
    print(f"\n==> {group.name}", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", "-o", "junit_family=xunit2", *group.options]
    if group.workers:
        command += ["-n", str(group.workers)]
    began = time.monotonic()
    code = _run_for(command + [str(path.relative_to(ROOT)) for path in paths], PATIENCE * group.budget_seconds)
    return _outcome(group, junit, code, time.monotonic() - began)


def _run_for(command: list[str], seconds: float) -> int | None:
    """Run a command in its own process group; end the whole group and return None when the time is over."""
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            return process.wait(seconds)
        except BaseException as error:  # an interrupt from the keyboard must end the tests as well
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise


def _outcome(group: Group, junit: Path, code: int | None, seconds: float) -> Outcome:
    passed, failed, skipped = _counts(junit)
    remark = "over budget" if seconds > group.budget_seconds else ""
    match code:
        case None:
            failed, remark = failed + 1, f"ended after {seconds:.0f} s without an answer"
        case 5:
            failed, remark = failed + 1, "no tests in the group"
        case 0 if passed + failed + skipped == 0:
            failed, remark = failed + 1, "reported nothing"
        case code if code and not failed:
            failed, remark = 1, f"pytest ended with exit code {code}"
    return Outcome(group, passed, failed, skipped, seconds, remark)


def _counts(junit: Path) -> tuple[int, int, int]:
    """Read passed, failed and skipped; nothing when pytest did not get as far as writing the file."""
    try:
        suites = list(ET.parse(junit).getroot().iter("testsuite"))
    except (FileNotFoundError, ET.ParseError):
        return 0, 0, 0
    tests, failed, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites for name in names)
        for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    return tests - failed - skipped, failed, skipped


def _report(outcomes: list[Outcome]) -> None:
    print(f"\n{'group':<12}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}{'budget':>8}")
    for one in outcomes:
        print(
            f"{one.group.name:<12}{one.passed:>8}{one.failed:>8}{one.skipped:>9}"
            f"{one.seconds:>9.1f}{one.group.budget_seconds:>8}  {one.remark}".rstrip()
        )
    seconds = sum(one.seconds for one in outcomes)
    print(f"{'all':<12}{'':>25}{seconds:>9.1f}\n")
    passed, failed, skipped = (sum(getattr(one, name) for one in outcomes) for name in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
