"""Identities."""

from random import Random
from uuid import UUID

import pytest

from continuum.ids import canonical, seeded_ids, uuid7

RUN_ID = "01900000-0000-7000-8000-0000000000ab"


def test_ids_are_of_version_7_and_ordered_in_time() -> None:
    made = [uuid7() for _ in range(100)]

    assert {UUID(one).version for one in made} == {7}
    assert len(set(made)) == 100
    assert made == sorted(made)


def test_seeded_ids_depend_on_the_seed_alone() -> None:
    def ten(seed: int) -> list[str]:
        source = seeded_ids(Random(seed))
        return [source() for _ in range(10)]

    assert ten(1) == ten(1)
    assert set(ten(1)).isdisjoint(ten(2))
    assert ten(1) == sorted(ten(1))
    assert {(UUID(one).version, UUID(one).variant) for one in ten(1)} == {(7, "specified in RFC 4122")}


@pytest.mark.parametrize("given", [RUN_ID, RUN_ID.upper(), RUN_ID.replace("-", ""), f"{{{RUN_ID}}}", UUID(RUN_ID)])
def test_a_run_id_is_lower_case_with_hyphens(given: str | UUID) -> None:
    assert canonical(given) == RUN_ID


@pytest.mark.parametrize("given", ["", "nonsense", RUN_ID[:-1], RUN_ID + "0"])
def test_what_is_no_uuid_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="badly formed"):
        canonical(given)
