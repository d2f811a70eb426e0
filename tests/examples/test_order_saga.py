"""What was done for an order that cannot be shipped is undone, newest first."""

from examples import order_saga


async def test_the_refused_order_is_undone_and_the_other_stays() -> None:
    ledger = await order_saga.main()
    assert [line for line in ledger if "o-1" in line] == ["charge o-1 4200", "reserve o-1"]
    assert [line for line in ledger if "o-2" in line] == [
        "charge o-2 100",
        "reserve o-2",
        "put back reservation-o-2",
        "refund o-2",
    ]
