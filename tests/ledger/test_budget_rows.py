"""Budgets as rows: what an exchange between a process and the database leaves there, to the last digit, without a gateway."""

import datetime as dt
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.ledger.budget import LEASE_S, Budget, LeaseExchange
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import budgets, store
    from hf_gateway.ledger.tables import leases


NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC).timestamp()
ONE, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
DOLLAR = 10**12


class Desk:
    """A database, and exchanges with it for one budget."""

    def __init__(self, engine: "sa.Engine") -> None:
        self.engine = engine
        self.budget = Budget("acme", "day", Decimal(10))
        self.left = 0

    def set(self, limit: int | str) -> bool:
        self.budget = Budget("acme", "day", Decimal(limit))
        return budgets.set_budget(self.engine, self.budget)

    def trade(self, process: uuid.UUID = ONE, *, want: int = 0, now: float = NOON, **amounts: int) -> LeaseExchange:
        """Exchange whole dollars."""
        key, _, _ = self.budget.at(NOON)

        def claim(left: int) -> int:
            self.left = left // DOLLAR
            return want * DOLLAR

        given = {name: amounts.get(name, 0) * DOLLAR for name in ("spent", "leased", "keep")}
        came = budgets.exchange_lease(self.engine, process, key, claim=claim, now=now, **given)
        limit = None if came.limit is None else came.limit // DOLLAR
        return LeaseExchange(limit, came.granted // DOLLAR, came.lost, came.spent // DOLLAR, came.reserved // DOLLAR)

    def stands(self) -> tuple[Decimal, Decimal]:
        """What is spent, and what is reserved."""
        (standing,) = budgets.budget_statuses(self.engine, NOON)
        return standing.spent, standing.reserved

    def leases(self) -> dict[uuid.UUID, tuple[Decimal, float]]:
        with self.engine.connect() as connection:
            return {row.process: (row.reserved_usd, row.expires) for row in connection.execute(sa.select(leases))}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with a_ledger("sqlite", tmp_path) as url:
        engine = store.open_engine(url)
        yield Desk(engine)
        engine.dispose()


def test_a_budget_is_set_changed_and_removed_by_tenant_and_period(desk: Desk) -> None:
    day, month = Budget("acme", "day", Decimal(1)), Budget("acme", "month", Decimal(2), "allow")
    assert [budgets.set_budget(desk.engine, each) for each in (day, month)] == [False, False]
    assert budgets.set_budget(desk.engine, Budget("acme", "day", Decimal(3))) is True
    assert budgets.all_budgets(desk.engine) == [Budget("acme", "day", Decimal(3)), month]
    budgets.set_budget(desk.engine, Budget("zeta", "day", Decimal(0)))
    assert budgets.remove_budget(desk.engine, "acme", "day") == 1
    assert budgets.all_budgets(desk.engine) == [month, Budget("zeta", "day", Decimal(0))]
    assert budgets.remove_budget(desk.engine, "acme") == 1
    assert budgets.remove_budget(desk.engine, "acme") == 0
    assert [each.tenant for each in budgets.all_budgets(desk.engine)] == ["zeta"]


@pytest.mark.parametrize("limit", ["0", "999999.999999999999"])
def test_a_limit_may_be_from_0_to_a_million(desk: Desk, limit: str) -> None:
    desk.set(limit)
    assert budgets.all_budgets(desk.engine)[0].limit == Decimal(limit)


@pytest.mark.parametrize("limit", ["-0.01", "1000000", "NaN", "Infinity"])
def test_what_is_no_limit_is_refused(desk: Desk, limit: str) -> None:
    with pytest.raises(errors.ConfigError, match="is not a limit in USD"):
        desk.set(limit)
    assert budgets.all_budgets(desk.engine) == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"period": "dya"}, "unknown period 'dya'.*day"),
        ({"on_unknown": "maybe"}, "'refuse' or 'allow', not 'maybe'"),
        ({"tenant": ""}, "needs its tenant"),
    ],
)
def test_a_budget_that_is_none_is_refused_with_the_reason(desk: Desk, facts: Any, said: str) -> None:
    with pytest.raises(errors.ConfigError, match=said):
        budgets.set_budget(desk.engine, Budget(**{"tenant": "a", "period": "day", "limit": Decimal(1), **facts}))


def test_a_lease_is_what_is_wanted_and_never_more_than_is_left(desk: Desk) -> None:
    desk.set(10)
    assert desk.trade(want=4) == LeaseExchange(10, 4, False, 0, 4)
    assert desk.left == 10
    assert desk.stands() == (0, 4)
    assert desk.leases() == {ONE: (Decimal(4), NOON + LEASE_S)}
    assert desk.trade(OTHER, want=100) == LeaseExchange(10, 6, False, 0, 10)
    assert desk.left == 6
    assert desk.trade(uuid.UUID(int=3), want=1) == LeaseExchange(10, 0, False, 0, 10)
    assert desk.left == 0
    assert desk.stands() == (0, 10)
    assert set(desk.leases()) == {ONE, OTHER}


def test_what_is_spent_is_written_and_what_is_not_kept_given_back(desk: Desk) -> None:
    desk.set(10)
    desk.trade(want=6)
    assert desk.trade(spent=2, leased=6, keep=3, now=NOON + 20) == LeaseExchange(10, 0, False, 2, 3)
    assert desk.left == 5
    assert desk.stands() == (2, 3)
    assert desk.leases() == {ONE: (Decimal(3), NOON + 20 + LEASE_S)}
    assert desk.trade(spent=1, leased=3, keep=2, want=4) == LeaseExchange(10, 4, False, 3, 6)
    assert desk.left == 5
    assert desk.trade(leased=6, keep=0) == LeaseExchange(10, 0, False, 3, 0)
    assert desk.stands() == (3, 0)
    assert desk.leases() == {}
    # What was spent beyond the lease counts as well.
    assert desk.trade(spent=9).spent == 12
    assert desk.left == 0


def test_a_claim_of_less_than_nothing_gives_nothing_back(desk: Desk) -> None:
    desk.set(10)
    desk.trade(want=4)
    assert desk.trade(leased=4, keep=4, want=-3) == LeaseExchange(10, 0, False, 0, 4)


def test_without_a_budget_nothing_is_leased_and_what_is_spent_is_written(desk: Desk) -> None:
    assert desk.trade(spent=2, want=4) == LeaseExchange(None, 0, False, 2, 0)
    assert desk.left == 0
    desk.set(10)
    assert desk.stands() == (2, 0)


def test_tenants_periods_and_days_are_apart(desk: Desk) -> None:
    desk.set(10)
    desk.trade(want=4, spent=1)
    for other in (Budget("else", "day", Decimal(10)), Budget("acme", "month", Decimal(10))):
        budgets.set_budget(desk.engine, other)
        desk.budget = other
        assert desk.trade(want=3) == LeaseExchange(10, 3, False, 0, 3)
    tomorrow, _, _ = Budget("acme", "day", Decimal(10)).at(NOON + 86_400)
    came = budgets.exchange_lease(
        desk.engine, ONE, tomorrow, spent=0, leased=0, keep=0, claim=lambda left: left, now=NOON + 86_400
    )
    assert came.granted == 10 * DOLLAR


def test_the_lease_of_a_process_that_is_silent_counts_as_spent_once_it_has_ended(desk: Desk) -> None:
    desk.set(10)
    desk.trade(want=4)
    assert desk.trade(OTHER, want=1, now=NOON + LEASE_S) == LeaseExchange(10, 1, False, 0, 5)
    assert desk.trade(OTHER, leased=1, keep=1, now=NOON + LEASE_S + 1) == LeaseExchange(10, 0, False, 4, 1)
    assert desk.left == 5
    # Once, and not again by the next one.
    assert desk.trade(OTHER, leased=1, keep=1, now=NOON + LEASE_S + 2) == LeaseExchange(10, 0, False, 4, 1)
    assert desk.stands() == (4, 1)


def test_ones_own_lease_goes_on_however_late_one_is(desk: Desk) -> None:
    desk.set(10)
    desk.trade(want=4)
    assert desk.trade(leased=4, keep=4, now=NOON + 10 * LEASE_S) == LeaseExchange(10, 0, False, 0, 4)
    assert desk.leases() == {ONE: (Decimal(4), NOON + 11 * LEASE_S)}


def test_a_process_that_only_slept_says_itself_what_it_spent(desk: Desk) -> None:
    desk.set(10)
    desk.trade(want=4)
    later = NOON + LEASE_S + 1
    assert desk.trade(OTHER, now=later).spent == 4
    assert desk.trade(spent=1, leased=4, keep=2, now=later) == LeaseExchange(10, 0, False, 1, 2)
    assert desk.leases() == {ONE: (Decimal(2), later + LEASE_S)}
    assert desk.stands() == (1, 2)


def test_after_a_day_it_has_no_claim_on_its_lease_any_more(desk: Desk) -> None:
    desk.set(10)
    desk.trade(want=4)
    desk.trade(OTHER, now=NOON + LEASE_S + 1)
    desk.trade(OTHER, now=NOON + LEASE_S + 86_400)
    assert set(desk.leases()) == {ONE}
    desk.trade(OTHER, now=NOON + LEASE_S + 86_401)
    assert desk.leases() == {}
    assert desk.trade(spent=1, leased=4, keep=2, want=1, now=NOON) == LeaseExchange(10, 1, True, 5, 1)


def test_what_is_kept_of_a_lease_that_was_lost_is_nothing(desk: Desk) -> None:
    desk.set(10)
    assert desk.trade(leased=4, keep=4) == LeaseExchange(10, 0, True, 0, 0)
    assert desk.leases() == {}
    assert desk.trade(leased=0, keep=0).lost is False
    assert desk.leases() == {}


def test_the_smallest_lease_is_one_too(desk: Desk) -> None:
    desk.set(10)
    key, _, _ = desk.budget.at(NOON)

    def trade(leased: int, keep: int, want: int, process: uuid.UUID = ONE) -> LeaseExchange:
        return budgets.exchange_lease(
            desk.engine, process, key, spent=0, leased=leased, keep=keep, claim=lambda _: want, now=NOON
        )

    assert trade(0, 0, 1) == LeaseExchange(10 * DOLLAR, 1, False, 0, 1)
    assert trade(1, 1, 0) == LeaseExchange(10 * DOLLAR, 0, False, 0, 1)
    assert trade(1, 1, 0, OTHER).lost
    assert desk.stands() == (0, Decimal("1e-12"))


def test_what_is_spent_beyond_what_the_database_holds_is_the_most_that_it_holds(desk: Desk) -> None:
    desk.set(10)
    for _ in range(2):
        assert desk.trade(spent=2**64).spent == 9_000_000
    assert desk.stands() == (9_000_000, 0)
