"""One tree of errors, all of which survive pickle."""

import copy
import inspect
import pickle
from typing import Any

import pytest

from continuum import errors
from continuum.definitions.signatures import Unresolved
from continuum.errors import (
    ActivityError,
    ActivityFailed,
    ActivityTimedOut,
    ContinuumError,
    DurableValueError,
    InputInvalid,
    Problem,
    ResultTimedOut,
    RunBlocked,
    RunFailed,
    SideEffectFailed,
    SignalInvalid,
    SignalTimedOut,
)
from continuum.replay.matching import Drift

FULL: list[ContinuumError] = [
    DurableValueError("no", path="/a", run_id="r"),
    InputInvalid("no", problems=[Problem("/a", "b"), Problem("/c", "d")], run_id="r"),
    SignalInvalid("no"),
    ActivityFailed(
        "no", activity="a", type="t", details={"x": 1}, attempts=3, causes=["c"], remote_traceback="tb", run_id="r"
    ),
    ActivityTimedOut("no", activity="a"),
    ActivityError("no", details=[1], retryable=False, retry_after=3),
    SideEffectFailed("no", type="t", causes=("c",), remote_traceback="tb", run_id="r"),
    SignalTimedOut("no", run_id="r"),
    ResultTimedOut("no", run_id="r"),
    RunFailed("no", type="t", details=1, causes=["c"], remote_traceback="tb", run_id="r"),
    RunBlocked("no", reason="why", run_id="r"),
    Drift(seq=3, expected="a", found="b", site="f:1 in g", run_id="r"),
    Unresolved("no"),
]
PLAIN = [
    error("no", run_id="r")
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, ContinuumError) and error not in {type(one) for one in FULL}
]


@pytest.mark.parametrize("error", [*FULL, *PLAIN], ids=lambda error: type(error).__name__)
def test_errors_survive_pickle_and_copy(error: ContinuumError) -> None:
    error.add_note("seen in a pool")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert (str(other), vars(other), other.args) == (str(error), vars(error), error.args)
        assert other.__notes__ == ["seen in a pool"]


@pytest.mark.parametrize("error", [*FULL, *PLAIN], ids=lambda error: type(error).__name__)
def test_errors_are_documented_and_say_their_message(error: ContinuumError) -> None:
    assert type(error).__doc__
    assert str(error) == error.message
    assert repr(error).startswith(type(error).__name__)


def test_what_timed_out_is_a_timeout_error_except_an_activity() -> None:
    assert issubclass(SignalTimedOut, TimeoutError)
    assert issubclass(ResultTimedOut, TimeoutError)
    assert not issubclass(ActivityTimedOut, TimeoutError)


@pytest.mark.parametrize("make", [ActivityFailed, RunFailed, SideEffectFailed])
def test_causes_are_asked_for_by_class_or_by_name(make: Any) -> None:
    error = make("no", causes=["builtins.KeyError", "builtins.LookupError"])

    assert error.caused_by(KeyError)
    assert error.caused_by(LookupError)
    assert error.caused_by("builtins.KeyError")
    assert not error.caused_by(ValueError)


def test_the_path_of_an_invalid_input_is_its_first_problem() -> None:
    assert InputInvalid("no", problems=[Problem("/a", "b"), Problem("/c", "d")]).path == "/a"
    assert InputInvalid("no").path == ""
