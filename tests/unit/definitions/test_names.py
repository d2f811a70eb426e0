"""Durable names, versions, and who may claim them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from continuum.definitions.activity import activity
from continuum.definitions.catalog import Catalog, catalog, scoped_catalog
from continuum.definitions.workflow import workflow
from continuum.errors import DefinitionError, DuplicateDefinition, WorkflowNotFound

ROOT = Path(__file__).parents[3]


async def flow() -> None: ...


async def other() -> None: ...


def test_names_default_to_module_and_qualname() -> None:
    async def local() -> None: ...

    class Namespace:
        @staticmethod
        @activity
        async def inside() -> None: ...

    assert workflow(flow).name == f"{__name__}.flow"
    assert activity(local).name == f"{__name__}.test_names_default_to_module_and_qualname.<locals>.local"
    assert Namespace.inside.name.endswith("<locals>.Namespace.inside")


def test_definitions_look_like_their_functions() -> None:
    async def documented() -> None:
        """Say so."""

    for made, kind in (
        (workflow(name="w")(documented), "workflow w v1"),
        (activity(name="a")(documented), "activity a"),
    ):
        assert (made.__name__, made.__doc__, made.__module__) == ("documented", "Say so.", __name__)
        assert made.__qualname__ == documented.__qualname__
        assert made.fn is documented
        assert repr(made) == f"<{kind}>"


PROGRAM = """
from continuum.definitions.activity import activity
from continuum.definitions.workflow import workflow

@workflow
async def flow() -> None: ...

class Space:
    @staticmethod
    @activity
    def act() -> None: ...

print(flow.name, Space.act.name)
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["my_orders.py"], "my_orders.flow my_orders.Space.act"),
        (["-m", "my_orders"], "my_orders.flow my_orders.Space.act"),
        (["-m", "shop"], "shop.flow shop.Space.act"),
        (["-c", PROGRAM], "__main__.flow __main__.Space.act"),
    ],
)
def test_in_main_the_module_is_what_was_run(tmp_path: Path, arguments: list[str], expected: str) -> None:
    (tmp_path / "my_orders.py").write_text(PROGRAM)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__main__.py").write_text(PROGRAM)

    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.strip() == expected


def test_the_same_function_made_again_replaces_the_older_one() -> None:
    first, second = workflow(flow), workflow(flow)
    one, two = activity(flow), activity(flow)

    assert catalog().workflow(first.name) is second
    assert catalog().activity(one.name) is two


def test_another_function_may_not_claim_a_name() -> None:
    workflow(name="orders")(flow)
    activity(name="orders")(flow)  # another kind, another name space

    with pytest.raises(DuplicateDefinition) as caught:
        workflow(name="orders")(other)
    assert str(caught.value) == (
        f"workflow 'orders' version 1 is defined by {__name__}.flow and again by {__name__}.other; give one another name"
    )
    with pytest.raises(DuplicateDefinition, match=r"activity 'orders' is defined by .*flow and again by .*other"):
        activity(name="orders")(other)


def test_several_versions_live_side_by_side_and_the_highest_is_started() -> None:
    first = workflow(name="orders", version=1)(flow)
    third = workflow(name="orders", version=3)(other)
    second = workflow(name="orders", version=2)(flow)

    assert catalog().workflow("orders") is third
    assert [catalog().workflow("orders", version) for version in (1, 2, 3)] == [first, second, third]
    assert [key for key in catalog().workflows if key[0] == "orders"] == [("orders", 1), ("orders", 2), ("orders", 3)]


def test_aliases_find_the_workflow_after_a_move() -> None:
    moved = workflow(name="new.place", aliases=("old.place", "older.place"))(flow)

    assert catalog().workflow("old.place") is catalog().workflow("older.place", 1) is moved
    assert moved.aliases == ("old.place", "older.place")


def test_an_alias_that_is_taken_registers_nothing() -> None:
    workflow(name="taken")(other)

    with pytest.raises(DuplicateDefinition, match="workflow 'taken' version 1"):
        workflow(name="new.place", aliases=("taken",))(flow)
    assert ("new.place", 1) not in catalog().workflows


def test_a_single_string_is_no_tuple_of_aliases() -> None:
    with pytest.raises(DefinitionError, match=r"aliases takes a tuple of names: \('old.place',\)"):
        workflow(aliases="old.place")(flow)


@pytest.mark.parametrize("version", [0, -1, 1.0, True, "1", None])
def test_versions_count_from_one(version: int) -> None:
    with pytest.raises(DefinitionError, match="version must be an integer from 1"):
        workflow(version=version)(flow)


def test_an_unknown_workflow_says_what_is_known() -> None:
    with pytest.raises(
        WorkflowNotFound, match=r"no workflow 'a' is registered in this process; import its module. Known: none"
    ):
        Catalog().workflow("a")
    workflow(name="b")(flow)
    with pytest.raises(WorkflowNotFound, match=r"no workflow 'b' version 2 is registered .* Known: b"):
        catalog().workflow("b", 2)


def test_an_unknown_activity_is_none() -> None:
    assert Catalog().activity("a") is None
    assert Catalog().activities == ()


def test_a_scoped_catalog_forgets_what_was_made_inside() -> None:
    workflow(name="outer")(flow)
    outer, before = catalog(), (catalog().workflows, catalog().activities)
    with scoped_catalog() as inner:
        assert catalog() is inner
        workflow(name="inner")(flow)
        activity(name="inner")(flow)
        assert {("inner", 1), ("outer", 1)} <= set(inner.workflows)
        assert "inner" in inner.activities

    assert catalog() is outer
    assert (catalog().workflows, catalog().activities) == before


def test_a_catalog_knows_whether_any_workflow_declares_its_signals() -> None:
    with_signals, without = Catalog(), Catalog()
    with_signals.add_workflow(workflow(signals={"go": int})(flow))
    without.add_workflow(workflow(flow))

    assert with_signals.declares_signals
    assert not without.declares_signals
