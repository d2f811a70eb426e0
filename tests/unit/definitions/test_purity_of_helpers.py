"""What a workflow calls is read too, and who may say how strict the check is."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from continuum.definitions.pure import pure
from continuum.definitions.purity import checking
from continuum.definitions.workflow import workflow
from continuum.errors import ConfigurationError, DefinitionError, PurityError, PurityWarning
from tests.unit.definitions.snippets import a_flow, found, module_of, names, told

TIME = "import time\ndef helper():\n    return time.time()"
LOG = "import logging\nlogger = logging.getLogger('x')\ndef helper():\n    logger.info('x')"


# --- helpers ----------------------------------------------------------------------------------------------------------


def test_an_unmarked_helper_cannot_smuggle_in_what_its_caller_may_not_do() -> None:
    errors, doubts = told(a_flow(TIME, "helper()"))
    assert names(errors) == ["time.time"]
    assert re.search(
        r":6: time.time reads a clock: use `continuum.now\(\)`.* \(called through helper at snippet_\d+.py:10\)$",
        errors[0],
    )
    assert doubts == []


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (f"{TIME}\ndef middle():\n    return helper()", "middle()"),
        (f"{TIME}\nclass Rates:\n    def now(self):\n        return helper()", "Rates().now()"),
        (f"{TIME}\nclass Rates:\n    @classmethod\n    def now(cls):\n        return helper()", "Rates.now()"),
        (f"{TIME}\nclass Rates:\n    @staticmethod\n    def now():\n        return helper()\nrates = Rates()", "rates.now()"),
        (f"{TIME}\nclass Rates:\n    def __init__(self):\n        helper()", "Rates()"),
        (f"{TIME}\nclass Base:\n    def now(self): return helper()\nclass Rates(Base): pass", "r: Rates = text\nr.now()"),
        (f"{TIME}\nimport functools\n@functools.cache\ndef middle():\n    return helper()", "middle()"),
        (f"{TIME}\nimport functools\nmiddle = functools.partial(helper)", "middle()"),
        (f"{TIME}\nasync def middle():\n    return helper()", "await asyncio.gather(middle())"),
        (TIME, "x = sorted([1], key=helper)"),
        (TIME, "alias = helper\nalias()"),
        (f"{TIME}\ndef a(n):\n    return b(n)\ndef b(n):\n    return a(n) if n else helper()", "a(n)"),
        ("def make():\n    import time\n    def inner():\n        return time.time()\n    return inner\nhelper = make()", "helper()"),
    ],
)  # fmt: skip
def test_a_helper_is_read_however_it_is_reached(header: str, body: str) -> None:
    assert found(header, body) == (["time.time"], [])


@pytest.mark.parametrize(
    "below",
    [
        "import time\ndef helper():\n    return time.time()",
        "from time import time as helper",
        "import time\nhelper = time.time",
        "import time\nother = time.time\nhelper = other",
    ],
)
def test_what_is_defined_further_down_is_read_as_well(below: str) -> None:
    errors, _ = told(a_flow("", "helper()") + below)
    assert names(errors) == ["time.time"]


@pytest.mark.parametrize(
    "below",
    [
        "import time\n@activity\nasync def helper() -> None:\n    time.time()",
        "import time\n@activity(name='x')\nasync def helper() -> None:\n    time.time()",
        "def helper(): ...",
        "if True:\n    helper = 1",
    ],
)
def test_what_is_defined_further_down_may_be_an_activity(below: str) -> None:
    assert told(a_flow("", "x = helper()") + below) == ([], [])


def test_names_that_lead_in_a_circle_lead_nowhere() -> None:
    with pytest.raises(NameError):  # when it is run; the check came first
        module_of(a_flow("", "helper()") + "helper = other\nother = helper")


def test_what_a_replay_only_repeats_is_a_warning_in_a_helper() -> None:
    assert found(LOG, "helper()") == ([], ["logging.Logger.info"])


def test_what_a_replay_only_repeats_is_an_error_in_a_marked_helper() -> None:
    errors, _ = told(f"from continuum import pure\n{LOG.replace('def', '@pure' + chr(10) + 'def')}")
    assert names(errors) == ["logging.Logger.info"]


def test_a_marked_helper_is_checked_where_it_stands_with_all_that_it_calls() -> None:
    errors, _ = told(f"from continuum import pure\n{TIME}\n@pure\ndef price():\n    return helper()")
    assert names(errors) == ["time.time"]
    assert "called through helper at" in errors[0]


def test_a_marked_helper_is_not_read_again_for_its_callers() -> None:
    header = TIME.replace("def", "@pure(allow=('time',))\ndef")
    assert found(header, "helper()") == ([], [])


def test_the_code_of_other_distributions_is_not_read() -> None:
    assert found(
        "import textwrap, pydantic\nclass M(pydantic.BaseModel):\n    n: int", "textwrap.dedent('x')\nM(n=1)"
    ) == (
        [],
        [],
    )


def test_a_helper_in_another_module_is_told_with_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "purity_shop").mkdir()
    (tmp_path / "purity_shop" / "__init__.py").write_text("")
    (tmp_path / "purity_shop" / "rates.py").write_text(
        "import random\n\n\ndef rate() -> float:\n    return random.random()\n"
    )
    (tmp_path / "purity_shop" / "flows.py").write_text(
        "import continuum\nfrom .rates import rate as current\n\n\n"
        "@continuum.workflow\nasync def flow() -> float:\n    from . import rates\n    return rates.rate()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PurityError) as caught:
        importlib.import_module("purity_shop.flows")
    (line,) = caught.value.findings
    assert line.startswith(f"{tmp_path / 'purity_shop' / 'rates.py'}:5: random.random draws from")
    assert line.endswith("(called through rate at flows.py:8)")
    for name in ("purity_shop", "purity_shop.rates"):
        sys.modules.pop(name, None)


# --- severity ---------------------------------------------------------------------------------------------------------


def test_the_error_says_where_what_why_and_what_to_do_next() -> None:
    with pytest.raises(PurityError) as caught:
        module_of(a_flow("import time, uuid", "time.time()\nuuid.uuid4()"))
    text = str(caught.value)
    assert re.fullmatch(
        r"workflow snippet\.flow would not replay:\n"
        r"  snippet_\d+\.py:8: time\.time reads a clock: use `continuum\.now\(\)`, the time of the turn\n"
        r"  snippet_\d+\.py:9: uuid\.uuid4 is another id on every replay: use `continuum\.uuid4\(\)`\n"
        r"Mend it, or say that it is meant: allow=\('time\.time', 'uuid\.uuid4',\) for these names, "
        r'purity="warn" or "off" for all of it\.',
        text,
    )
    assert isinstance(caught.value, DefinitionError)


def test_a_warning_points_at_the_line_concerned() -> None:
    with pytest.warns(PurityWarning) as caught:
        module = module_of(a_flow("", "x = 1\nhash(x)"))
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (module.__file__, 9)


@pytest.mark.parametrize(
    ("options", "errors", "doubts"),
    [
        ("", ["time.time"], ["hash"]),
        ("purity='error'", ["time.time"], ["hash"]),
        ("purity='warn'", [], ["time.time", "hash"]),
        ("purity='off'", [], []),
    ],
)
def test_how_strict_it_is_can_be_chosen(options: str, errors: list[str], doubts: list[str]) -> None:
    assert found("import time", "time.time()\nhash(text)", options=options) == (errors, doubts)


@pytest.mark.parametrize(
    ("default", "errors"), [("warn", []), ("off", []), ("error", ["time.time"]), ("", ["time.time"])]
)
def test_the_environment_has_the_default(monkeypatch: pytest.MonkeyPatch, default: str, errors: list[str]) -> None:
    monkeypatch.setenv("CONTINUUM_PURITY", default)
    assert found("import time", "time.time()")[0] == errors
    assert found("import time", "time.time()", options="purity='error'")[0] == ["time.time"]


async def _fine() -> None: ...


def test_what_is_no_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DefinitionError, match='purity must be "error", "warn" or "off", not \'strict\''):
        workflow(purity="strict")(_fine)  # type: ignore[call-overload]
    monkeypatch.setenv("CONTINUUM_PURITY", "loud")
    with pytest.raises(ConfigurationError, match="CONTINUUM_PURITY must be error, warn or off, not 'loud'"):
        workflow(_fine)


# --- what is allowed explicitly ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["time.time", "time"])
def test_a_name_or_its_module_can_be_allowed(name: str) -> None:
    assert found("import time", "time.time()", options=f"allow=({name!r},)") == ([], [])


def test_only_whole_words_of_a_name_are_allowed() -> None:
    errors, doubts = told(a_flow("import time", "time.time()", options="allow=('time.ti',)"))
    assert names(errors) == ["time.time"]
    assert doubts == ["workflow snippet.flow: allow='time.ti' allows nothing that is done here"]


@pytest.mark.parametrize(
    ("header", "body", "name"),
    [
        ("SEEN = []", "SEEN.append(1)", "module-state"),
        ("", "for x in {'a', 'b'}:\n    pass", "set-order"),
        ("", "done, _ = await asyncio.wait([])\nfor x in done:\n    pass", "wait-order"),
        ("", "try:\n    pass\nexcept BaseException:\n    pass", "except-all"),
        ("", "print('x')", "print"),
        ("import logging\nlogger = logging.getLogger('x')", "logger.info('x')", "logging"),
        (TIME, "helper()", "snippet.helper"),
        (TIME, "helper()", "snippet"),
        (TIME, "helper()", "time.time"),
    ],
)
def test_everything_that_is_found_can_be_allowed(header: str, body: str, name: str) -> None:
    assert found(header, body, options=f"allow=({name!r},)") == ([], [])


@pytest.mark.parametrize("allow", ["time", ["time", 1]])
def test_what_is_no_list_of_names_is_refused(allow: Any) -> None:
    with pytest.raises(DefinitionError, match="allow takes a tuple of names"):
        workflow(allow=allow)(_fine)


# --- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "allow=('time',)"])
def test_without_source_there_is_nothing_to_check(options: str) -> None:
    module: dict[str, Any] = {"__name__": "bare"}
    exec(f"import continuum, time\n@continuum.workflow({options})\nasync def flow() -> None:\n    time.time()", module)
    assert module["flow"].name == "bare.flow"


def test_source_that_is_not_the_code_s_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "changed.py"
    file.write_text("import time\nasync def other() -> None:\n    time.time()\n")
    module: dict[str, Any] = {"__name__": "changed", "continuum": __import__("continuum")}
    exec(compile("\n@continuum.workflow\nasync def flow() -> None: ...", str(file), "exec"), module)
    file.write_text("this is not Python")
    exec(compile("\n@continuum.workflow\nasync def flow() -> None: ...", str(file), "exec"), module)


def test_only_functions_are_marked() -> None:
    with pytest.raises(DefinitionError, match="@pure marks functions, not <class"):
        pure(Path)


def test_a_marked_function_is_the_same_function() -> None:
    def price(cents: int) -> int:
        return cents + 1

    assert pure(price) is price
    assert price(1) == 2


def test_objects_are_looked_at_and_never_asked() -> None:
    header = """
    class Lazy:
        def __getattribute__(self, name):
            raise AssertionError(f"was asked for {name}")
        def __eq__(self, other):
            raise AssertionError("was compared")
        __hash__ = None
        @property
        def settings(self):
            raise AssertionError("was computed")
    lazy = Lazy()
    """
    assert found(header, "x = lazy.settings\nlazy.run()\ny = [lazy]\nif lazy:\n    pass\nlazy['a']") == ([], [])


def test_a_checker_that_fails_says_so_and_lets_the_code_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_source: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(checking, "read", fails)
    with pytest.warns(
        PurityWarning, match=r"flow \(snippet_\d+.py:7\) could not be checked, please report it: Recursion"
    ):
        module = module_of(a_flow("", "pass"))
    assert module.flow.name == "snippet.flow"
