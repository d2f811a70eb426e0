"""Years of monthly bills, in generations of one run."""

from itertools import groupby

from examples import subscription


async def test_three_years_are_billed_by_the_plan_of_each_month() -> None:
    months = await subscription.main()
    assert [month for month, *_ in subscription.billed] == list(range(1, months + 1))
    plans = [(plan, len(list(bills))) for plan, bills in groupby(subscription.billed, key=lambda bill: bill[1])]
    assert plans == [("basic", 25), ("pro", months - 25)]
