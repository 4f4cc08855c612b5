"""What a process may spend of its budgets, counted in memory: leased ahead, given back, renewed; without any database."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from hf_gateway.errors import BudgetExceeded, BudgetUnavailable
from hf_gateway.ledger.budget import LEASE_S, Budget, Key, LeaseExchange
from hf_gateway.ledger.budget_pool import BudgetPool, Reservation, format_usd, lease_size, tenant_name

NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC).timestamp()
ACME = Budget("acme", "day", Decimal(1))
ALL = Budget("*", "month", Decimal(1))


class Bank:
    """Stands in for the database: says what is left, and writes down what it was told."""

    def __init__(self, limit: int | None = 1000) -> None:
        self.limit = limit
        self.spent = self.reserved = 0
        self.told: list[tuple[str, int, int, int, int]] = []
        """Tenant, spent, leased, keep, granted."""
        self.lost = False
        self.fault: Callable[[Key], BaseException | None] = lambda key: None

    def trade(self, key: Key, *, spent: int, leased: int, keep: int, claim: Callable[[int], int]) -> LeaseExchange:
        if (fault := self.fault(key)) is not None:
            raise fault
        lost, self.lost = self.lost, False
        keep = 0 if lost else keep
        self.spent += spent
        self.reserved += keep - leased
        left = 0 if self.limit is None else max(self.limit - self.spent - self.reserved, 0)
        granted = min(max(claim(left), 0), left)
        self.reserved += granted
        self.told.append((key.tenant, spent, leased, keep, granted))
        return LeaseExchange(self.limit, granted, lost, self.spent, self.reserved)


class Desk:
    """A pool at a bank, with clocks that stand still."""

    def __init__(self) -> None:
        self.now, self.monotonic, self.woken = NOON, 100.0, 0
        self.bank = Bank()
        self.pool = BudgetPool(lambda: self.now, lambda: self.monotonic, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def serve(self, closing: bool = False) -> bool:
        return self.pool.serve(self.bank.trade, closing, lambda error: f"said: {error}")

    def enter(self, needed: int, *which: Budget) -> tuple[Reservation, bool]:
        request = Reservation(needed=needed)
        return request, self.pool.reserve(request, which or (ACME,))

    def admitted(self, needed: int, *which: Budget) -> Reservation:
        """Let a request through, with the bank's help where it is wanted."""
        request, at_once = self.enter(needed, *which)
        if not at_once:
            self.serve()
            assert request.waits.result(0) is None
        return request

    def last(self) -> tuple[int, int, int, int]:
        """What the bank was told last: spent, leased, keep, granted."""
        return self.bank.told[-1][1:]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def holds(request: Reservation) -> tuple[int, int, int, int]:
    """What the account of a request has: free, held, spent, leased."""
    (account,) = request.accounts
    return account.free, account.held, account.spent, account.leased


def test_the_first_request_waits_until_something_is_leased_for_it(desk: Desk) -> None:
    assert desk.pool.idle
    request, at_once = desk.enter(10)
    assert (at_once, request.admitted, request.waits.done(), desk.woken) == (False, False, False, 1)
    assert not desk.pool.idle
    assert desk.serve() is False
    assert request.admitted
    assert request.waits.result(0) is None
    assert desk.last() == (0, 0, 0, 10)
    assert holds(request) == (0, 10, 0, 10)


def test_what_a_request_did_not_cost_is_free_for_the_next_one(desk: Desk) -> None:
    first = desk.admitted(10)
    desk.pool.settle(first, 4)
    assert holds(first) == (6, 0, 4, 10)
    second, at_once = desk.enter(6)
    assert (at_once, second.admitted, desk.woken) == (True, True, 1)
    assert holds(second) == (0, 6, 4, 10)
    assert second.terms == [0]
    third, at_once = desk.enter(1)
    assert (at_once, desk.woken) == (False, 2)
    desk.serve()
    assert third.admitted
    assert desk.bank.told[-1][1:4] == (4, 10, 6)
    assert (third.accounts[0].spent, desk.bank.spent) == (0, 4)


def test_what_is_spent_is_written_once(desk: Desk) -> None:
    request = desk.admitted(10)
    desk.pool.settle(request, 4)
    desk.serve()
    assert desk.last() == (4, 10, 6, 0)
    assert holds(request) == (6, 0, 0, 6)
    # Then what nobody asks for goes back, and nothing is left to say.
    desk.serve()
    assert desk.last() == (0, 6, 0, 0)
    assert holds(request) == (0, 0, 0, 0)
    told = len(desk.bank.told)
    desk.serve()
    assert len(desk.bank.told) == told


def test_what_a_request_holds_is_not_given_back(desk: Desk) -> None:
    request = desk.admitted(10)
    for closing in (False, True):
        desk.serve(closing)
        assert holds(request) == (0, 10, 0, 10)


def test_several_requests_of_late_have_as_many_leased_ahead_but_no_more_than_their_share(desk: Desk) -> None:
    desk.bank.limit = 669
    desk.pool.settle(desk.admitted(10), 10)
    desk.serve()  # writes 10, and knows now how large they are
    request, at_once = desk.enter(10)
    assert not at_once
    desk.serve()
    # An eighth of what is left beside it, in whole requests: nothing was asked for since the last time, so for this one alone.
    assert desk.last() == (0, 0, 0, 10)
    desk.pool.settle(request, 10)
    another, _ = desk.enter(10)
    desk.serve()
    # 669 - 20 spent - 10 for this one: an eighth is 79, so 7 requests ahead.
    assert desk.last() == (10, 10, 0, 80)
    assert holds(another) == (70, 10, 0, 80)
    assert another.accounts[0].low == 35


def test_what_is_free_already_is_used_for_the_next_one_and_ahead_is_leased_the_same(desk: Desk) -> None:
    desk.pool.settle(desk.admitted(10), 5)
    desk.enter(10)
    desk.serve()
    assert desk.last() == (5, 10, 5, 5 + 120)


def test_how_large_requests_are_is_known_after_an_exchange_that_failed(desk: Desk) -> None:
    desk.pool.settle(desk.admitted(10), 10)
    desk.bank.fault = lambda key: OSError("gone")
    desk.serve()
    desk.bank.fault = lambda key: None
    desk.enter(10)
    desk.serve()
    assert desk.last() == (10, 10, 0, 10 + 120)


def test_no_more_than_256_requests_are_leased_ahead(desk: Desk) -> None:
    desk.bank.limit = 10**9
    desk.pool.settle(desk.admitted(10), 10)
    desk.enter(10)
    desk.serve()
    assert desk.last() == (10, 10, 0, 10 + 2560)


def test_more_is_leased_before_anybody_has_to_wait_for_it(desk: Desk) -> None:
    desk.pool.settle(desk.admitted(10), 10)
    first, _ = desk.enter(10)
    desk.serve()
    account = first.accounts[0]
    free, low, woken = account.free, account.low, desk.woken
    while account.free - 10 >= low:
        assert desk.enter(10)[1]
        assert desk.woken == woken
    assert desk.enter(10)[1]
    assert desk.woken == woken + 1
    ahead = (1000 - desk.bank.spent - desk.bank.reserved) // 8 // 10 * 10
    assert 0 < account.free < low < ahead
    desk.serve()
    # What is free counts: as much is leased as is missing.
    assert account.free == ahead
    assert desk.last()[3] < free


def test_those_who_wait_are_let_through_in_the_order_they_came(desk: Desk) -> None:
    desk.bank.limit = 30
    requests = [desk.enter(10)[0] for _ in range(4)]
    # Also one for which there would be enough.
    small, at_once = desk.enter(1)
    assert not at_once
    assert desk.serve() is False
    assert [each.admitted for each in requests] == [True, True, True, False]
    assert not small.admitted
    with pytest.raises(BudgetExceeded):
        requests[3].waits.result(0)
    with pytest.raises(BudgetExceeded):
        small.waits.result(0)


def test_a_request_needs_all_of_its_budgets_or_takes_none(desk: Desk) -> None:
    request = desk.admitted(10, ACME, ALL)
    assert [(account.free, account.held) for account in request.accounts] == [(0, 10), (0, 10)]
    assert sorted(told[0] for told in desk.bank.told) == ["*", "acme"]
    desk.pool.settle(request, 10)
    acme, everybody = request.accounts
    assert (acme.spent, everybody.spent) == (10, 10)
    acme.free = 10
    other, at_once = desk.enter(10, ACME, ALL)
    assert not at_once
    assert (acme.free, acme.held, everybody.free, everybody.held) == (10, 0, 0, 0)
    assert other.accounts == [acme, everybody]


def test_a_refusal_says_what_stands_in_the_way(desk: Desk) -> None:
    cent = 10**10
    desk.bank.limit, desk.bank.spent, desk.bank.reserved = 100 * cent, 60 * cent, 25 * cent
    request, _ = desk.enter(20 * cent)
    assert desk.serve() is False
    with pytest.raises(BudgetExceeded) as refused:
        request.waits.result(0)
    error = refused.value
    assert (error.tenant, error.period) == ("acme", "day")
    assert (error.limit, error.spent, error.reserved, error.needed) == tuple(map(Decimal, ("1", "0.6", "0.25", "0.2")))
    assert error.resets == dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    assert str(error) == (
        "the budget of tenant 'acme' for the day is $1.00: $0.60 of it is spent, $0.25 is reserved by running requests, and "
        "this one may cost $0.20; nothing was sent. The next day begins at 2026-02-01 00:00 UTC"
    )
    # Of what is left of it exactly, one more is let through.
    assert desk.admitted(15 * cent).admitted


@pytest.mark.parametrize(("spent", "reserved", "shown"), [(60, 40, "0.4"), (85, 0, "0"), (100, 0, "0")])
def test_what_this_process_has_free_is_not_reserved_by_others(
    desk: Desk, spent: int, reserved: int, shown: str
) -> None:
    cent = 10**10
    desk.bank.limit, desk.bank.spent, desk.bank.reserved = 100 * cent, spent * cent, reserved * cent
    request, _ = desk.enter(20 * cent)
    desk.serve()
    with pytest.raises(BudgetExceeded) as refused:
        request.waits.result(0)
    assert refused.value.reserved == Decimal(shown)


def test_a_budget_of_which_enough_is_leased_refuses_nobody(desk: Desk) -> None:
    request, _ = desk.enter(10, ACME, ALL)

    def trade(key: Key, **amounts: Any) -> LeaseExchange:
        """Lower the one after it was leased; of the other nothing is left."""
        return LeaseExchange(5, 10, False, 0, 10) if key.tenant == "acme" else LeaseExchange(1000, 0, False, 1000, 0)

    assert desk.pool.serve(trade, False, str) is False
    with pytest.raises(BudgetExceeded, match="the budget of all calls"):
        request.waits.result(0)


def test_where_others_were_faster_a_request_waits_on(desk: Desk) -> None:
    desk.bank.limit = 10
    request, _ = desk.enter(10)
    trade = desk.bank.trade
    bank: Any = desk.bank

    def short(key: Key, **amounts: Any) -> LeaseExchange:
        """Give less than is wanted, although more is left."""
        return trade(key, **{**amounts, "claim": lambda left: 4})

    bank.trade = short
    assert desk.serve() is True
    assert not request.waits.done()
    bank.trade = trade
    assert desk.serve() is False
    assert request.admitted


def test_a_budget_that_is_gone_holds_nobody_up(desk: Desk) -> None:
    desk.bank.limit = None
    request, _ = desk.enter(10)
    assert desk.serve() is True
    assert request.accounts == []
    assert desk.serve() is False
    assert request.waits.result(0) is None
    desk.pool.settle(request, 10)


def test_a_request_whose_caller_went_away_takes_nothing(desk: Desk) -> None:
    request, _ = desk.enter(10)
    desk.pool.settle(request, 0)
    assert request.over
    assert desk.serve() is False
    assert (request.admitted, request.waits.done()) == (False, True)
    gone = Reservation(needed=10, over=True)
    assert desk.pool.reserve(gone, [ACME]) is True
    assert not gone.admitted


def test_who_leaves_has_those_served_who_wait(desk: Desk) -> None:
    request = desk.admitted(10)
    woken = desk.woken
    desk.pool.settle(request, 0)
    assert desk.woken == woken
    first = desk.admitted(10)
    desk.enter(10)
    woken = desk.woken
    desk.pool.settle(first, 0)
    assert desk.woken == woken + 1


def test_a_database_that_fails_for_one_budget_is_told_to_those_who_need_it_and_changes_nothing(desk: Desk) -> None:
    held = desk.admitted(10)
    desk.pool.settle(held, 4)
    desk.bank.fault = lambda key: OSError("gone") if key.tenant == "acme" else None
    first, _ = desk.enter(50)
    other, _ = desk.enter(50, ALL)
    assert desk.serve() is False
    with pytest.raises(BudgetUnavailable, match="cannot be reached: said: gone; nothing was sent"):
        first.waits.result(0)
    assert other.admitted
    assert holds(held) == (6, 0, 4, 10)
    desk.bank.fault = lambda key: None
    assert desk.admitted(50).admitted
    assert desk.bank.spent == 4


def test_what_was_to_be_given_back_is_there_again_when_that_failed(desk: Desk) -> None:
    request = desk.admitted(10)
    desk.pool.settle(request, 0)
    desk.serve()
    assert holds(request) == (10, 0, 0, 10)
    desk.bank.fault = lambda key: OSError("gone")
    desk.serve()
    assert holds(request) == (10, 0, 0, 10)
    desk.bank.fault = lambda key: None
    desk.serve()
    assert holds(request) == (0, 0, 0, 0)


def test_a_lease_is_renewed_in_its_last_twenty_seconds_and_of_no_use_after_them(desk: Desk) -> None:
    request = desk.admitted(10)
    account = request.accounts[0]
    assert account.valid_until == 100.0 + LEASE_S
    told = len(desk.bank.told)
    desk.monotonic += LEASE_S - 20.0 - 0.5
    desk.serve()
    assert len(desk.bank.told) == told
    desk.monotonic += 0.5
    desk.serve()
    assert desk.last() == (0, 10, 10, 0)
    assert account.valid_until == desk.monotonic + LEASE_S
    desk.pool.settle(request, 0)
    assert account.usable(account.valid_until - 0.001) == 10
    assert account.usable(account.valid_until) == 0
    desk.monotonic += LEASE_S
    late, at_once = desk.enter(10)
    assert not at_once
    desk.serve()
    assert late.admitted


def test_of_a_lease_that_was_lost_nothing_is_left_and_what_was_spent_of_it_counts(desk: Desk) -> None:
    first = desk.admitted(10)
    account = first.accounts[0]
    desk.monotonic += LEASE_S
    desk.bank.lost, desk.bank.reserved = True, 10
    second = desk.admitted(20)
    assert (account.term, second.terms) == (1, [1])
    assert holds(second) == (120, 20, 0, 140)
    # It was let through under the old one, and gives nothing back to the new one.
    desk.pool.settle(first, 7)
    assert holds(first) == (120, 20, 7, 140)
    desk.pool.settle(second, 5)
    assert holds(second) == (135, 0, 12, 140)


def test_what_was_spent_beyond_what_was_reserved_is_no_debt_for_ever(desk: Desk) -> None:
    request = desk.admitted(10)
    desk.pool.settle(request, 25)
    assert holds(request) == (-15, 0, 25, 10)
    desk.serve()
    # And for those that come is leased ahead, of which all is free.
    assert desk.last() == (25, 10, 0, 120)
    assert holds(request) == (120, 0, 0, 120)


def test_a_new_period_has_an_account_of_its_own_and_the_old_one_is_settled(desk: Desk) -> None:
    old = desk.admitted(10)
    account = old.accounts[0]
    assert (account.begins, account.ends) == (NOON - 12 * 3600, NOON + 12 * 3600)
    desk.now = account.ends - 1
    assert desk.enter(1)[0].accounts[0] is account
    desk.now = account.ends
    new = desk.admitted(10)
    assert new.accounts[0] is not account
    assert new.accounts[0].key == Key("acme", "day", dt.date(2026, 2, 1))
    desk.pool.settle(old, 4)
    desk.serve()
    assert (account.free, account.held, account.spent) == (0, 1, 0)
    desk.pool._accounts.clear()
    assert not desk.pool.idle
    account.held = account.leased = 0
    desk.serve()
    assert desk.pool.idle


def test_a_clock_that_is_set_back_charges_the_day_that_it_shows(desk: Desk) -> None:
    desk.admitted(10)
    desk.now = NOON - 86_400
    assert desk.enter(1)[0].accounts[0].key.starts == dt.date(2026, 1, 30)


def test_a_clock_that_runs_a_second_late_makes_no_second_account(desk: Desk) -> None:
    first = desk.admitted(10)
    account = first.accounts[0]
    assert desk.enter(1)[0].accounts[0] is account
    account.ends = NOON - 1
    assert desk.enter(1)[0].accounts[0] is account


def test_who_waits_for_a_promise_cannot_cancel_it() -> None:
    made = lease_size()
    assert made.cancel() is False
    made.set_result(None)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("0", "$0.00"), ("1", "$1.00"), ("0.5", "$0.50"), ("0.125", "$0.125"), ("1E+3", "$1000.00"), ("1.2300", "$1.23")],
)
def test_an_amount_is_shown_with_all_its_digits_and_two_at_least(amount: str, shown: str) -> None:
    assert format_usd(Decimal(amount)) == shown


def test_a_tenant_is_named_and_everybody_too() -> None:
    assert (tenant_name("*"), tenant_name("acme")) == ("all calls", "tenant 'acme'")
