"""The thread that keeps budgets: started once, ended with all written, asking for no more than is needed."""

import asyncio
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target
from hf_gateway.errors import BudgetExceeded, BudgetUnavailable, ConfigError
from hf_gateway.ledger import budget_watch, enable_budgets
from hf_gateway.ledger.budget_pool import lease_size
from hf_gateway.ledger.budget_watch import BudgetWatcher
from hf_gateway.observing import observer
from tests.ledger.test_budgets import CHAT, MODEL, TEXT, Exact, Office, gateway
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import budgets, models, store


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with a_ledger("sqlite", tmp_path) as url:
        made = Office(url)
        yield made
        made.close()


@pytest.fixture
def server(office: Office) -> Iterator[Exact]:
    """A server at which a call costs 0.003 USD."""
    with Exact() as made:
        office.price(f"openai:{made.url}", "100")
        yield made


def keepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hf-gateway budgets"]


def test_one_thread_keeps_the_budgets_until_it_is_closed_and_none_after_that(office: Office) -> None:
    office.set("acme", "1")
    watcher = office.watch()
    (thread,) = keepers()
    assert thread.daemon
    watcher.start()
    assert keepers() == [thread]
    watcher.close()
    assert keepers() == []
    assert watcher not in observer.watchers
    watcher.start()
    assert keepers() == []
    assert watcher not in observer.watchers


def test_closing_writes_what_was_spent_and_gives_back_what_is_leased(office: Office, server: Exact) -> None:
    office.set("acme", "1")
    watcher = office.watch()
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        for _ in range(3):
            gate.chat(TEXT)
    watcher.close()
    office.watchers.clear()
    assert office.spent("acme") == (Decimal("0.009"), 0)


def test_the_router_is_asked_for_prices_only_where_a_request_needs_them(
    office: Office, server: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeRouter() as router:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        office.set("acme", "1")
        watcher = office.watch()
        with gateway(server) as gate, observer.tagged(tenant="acme"):
            gate.chat(TEXT)
        with gateway(server) as gate, FakeOpenAI(models=None) as unpriced, observer.tagged(tenant="acme"):
            away = Gateway(MODEL, [f"endpoint:{unpriced.url}"], task="chat")
            with pytest.raises(BudgetExceeded, match="is unknown"):
                away.chat(TEXT)
        assert watcher.sync()
        assert router.requests == []


def test_the_budget_of_everybody_is_charged_once_for_a_tenant_of_that_name(office: Office, server: Exact) -> None:
    office.set("*", "1")
    office.watch()
    with gateway(server) as gate, observer.tagged(tenant="*"):
        gate.chat(TEXT)
    assert office.spent("*")[0] == Decimal("0.003")


def test_who_has_no_budget_is_not_held_up_by_a_database_that_does_not_answer(
    office: Office, server: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.set("acme", "1")
    office.watch()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("there is nothing to exchange")

    monkeypatch.setattr(budgets, "exchange_lease", never)
    with gateway(server) as gate, observer.tagged(tenant="other"):
        gate.chat(TEXT)
    assert server.count(CHAT) == 1


@pytest.mark.parametrize("on_a_loop", [False, True])
def test_a_database_that_is_too_slow_ends_the_wait_and_the_request_takes_nothing(
    on_a_loop: bool, office: Office, server: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.set("acme", "0.003")
    office.watch()
    go_on, exchange = threading.Event(), budgets.exchange_lease

    def slow(*arguments: Any, **amounts: Any) -> Any:
        assert go_on.wait(30)
        return exchange(*arguments, **amounts)

    with gateway(server) as gate, observer.tagged(tenant="acme"):
        monkeypatch.setattr(budgets, "exchange_lease", slow)
        monkeypatch.setattr(budget_watch, "DATABASE_TIMEOUT_S", 0.05)

        def ask() -> object:
            return asyncio.run(asyncio.wait_for(gate.achat(TEXT), 30)) if on_a_loop else gate.chat(TEXT)

        with pytest.raises(BudgetUnavailable, match="it did not answer in time"):
            ask()
        assert server.count(CHAT) == 0
        assert office.watchers[0].sync(0.05) is False
        go_on.set()
        monkeypatch.undo()
        gate.chat(TEXT)
    assert office.spent("acme") == (Decimal("0.003"), 0)


def test_a_fault_of_the_database_is_logged_once_and_again_when_it_was_over(
    office: Office, server: Exact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    office.set("acme", "1")
    watcher = office.watch()

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("the disk is full")

    with gateway(server) as gate, observer.tagged(tenant="acme"):
        monkeypatch.setattr(budgets, "exchange_lease", broken)
        for _ in range(3):
            with pytest.raises(BudgetUnavailable, match="the disk is full"):
                gate.chat(TEXT)
        assert caplog.text.count("the budgets cannot be enforced") == 1
        monkeypatch.undo()
        gate.chat(TEXT)
        # Once it went well, it is news again.
        monkeypatch.setattr(budgets, "exchange_lease", broken)
        with pytest.raises(BudgetUnavailable, match="the disk is full"):
            gate.chat(TEXT)
        assert caplog.text.count("the budgets cannot be enforced") == 2
        monkeypatch.undo()
        assert watcher.sync()
    assert office.spent("acme")[0] == Decimal("0.003")


def test_budgets_that_cannot_be_read_any_more_stay_as_they_were(
    office: Office, server: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.set("acme", "0.003")
    watcher = office.watch()

    def broken(*_: Any) -> Any:
        raise OSError("the disk is full")

    monkeypatch.setattr(budgets, "all_budgets", broken)
    assert watcher.sync() is False
    with gateway(server) as gate, observer.tagged(tenant="acme"):
        gate.chat(TEXT)
        with pytest.raises(BudgetExceeded):
            gate.chat(TEXT)


def test_the_tables_are_made_where_there_are_none_and_a_database_where_that_failed_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go: list[sa.Engine] = []
    open_engine = store.open_engine

    def opened(*arguments: Any, **options: Any) -> sa.Engine:
        engine = open_engine(*arguments, **options)
        sa.event.listen(engine, "engine_disposed", let_go.append)
        return engine

    def broken(_: sa.Engine) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(store, "open_engine", opened)
    watcher = BudgetWatcher(f"sqlite:///{tmp_path}/new.sqlite")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(store, "upgrade", broken)
            assert watcher.sync() is False
            assert len(let_go) == 1
        assert watcher.sync() is True
    finally:
        watcher.close()
    assert len(let_go) == 2


def test_before_the_budgets_are_known_it_is_said_why_they_are_not(
    office: Office, server: Exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("the disk is full")

    monkeypatch.setattr(budgets, "all_budgets", broken)
    watcher = BudgetWatcher(office.url, strict=True)
    office.watchers.append(watcher)
    assert watcher.sync() is False
    with gateway(server) as gate, pytest.raises(BudgetUnavailable, match="the disk is full"):
        gate.chat(TEXT)
    assert server.count() == 0
    monkeypatch.undo()
    assert watcher.sync()
    with gateway(server) as gate:
        gate.chat(TEXT)


def test_the_routers_prices_are_looked_at_again_once_they_were_needed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[None] = []
    expect = models.PriceBook.expect_router

    def noted(book: models.PriceBook) -> Any:
        looked.append(None)
        return expect(book)

    monkeypatch.setattr(models.PriceBook, "expect_router", noted)
    with FakeRouter() as router:
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        office.set("acme", "1")
        watcher = office.watch()
        assert looked == []
        target = Target("hf", model=MODEL, provider="novita", url=router.url, credential="hf_test")
        gate = Gateway(targets=[target], task="chat")
        with observer.tagged(tenant="acme"), pytest.raises(BudgetExceeded, match="is unknown"):
            gate.chat(TEXT)
        before = len(looked)
        assert watcher.sync()
        assert len(looked) > before > 0


@pytest.mark.parametrize("where", ["asking for them", "reading them"])
def test_prices_that_cannot_be_had_hold_a_request_up_no_longer(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    office.set("acme", "1")
    office.watch()
    read = models.PriceBook.prices

    def broken(*_: Any) -> Any:
        raise OSError("the disk is full")

    def asked(_: models.PriceBook) -> Any:
        if where == "asking for them":
            raise OSError("the disk is full")
        monkeypatch.setattr(models.PriceBook, "prices", broken)
        done = lease_size()
        done.set_result(None)
        return done

    monkeypatch.setattr(models.PriceBook, "expect_router", asked)
    gate = Gateway(targets=[Target("hf", model=MODEL, provider="novita", credential="hf_test")], task="chat")
    for _ in range(2):
        with observer.tagged(tenant="acme"), pytest.raises(BudgetExceeded, match="is unknown"):
            gate.chat(TEXT)
    assert "the budgets cannot be enforced: " in caplog.text
    assert "the disk is full" in caplog.text
    monkeypatch.setattr(models.PriceBook, "prices", read)


async def test_on_an_event_loop_an_error_is_the_requests_and_nobody_elses(office: Office, server: Exact) -> None:
    office.set("acme", "0")
    office.watch()
    gate = gateway(server)
    with observer.tagged(tenant="acme"), pytest.raises(BudgetExceeded):
        await gate.achat(TEXT)
    await gate.aclose()
    assert server.count(CHAT) == 0


@pytest.mark.parametrize("value", ["foo", "reqiure", "of"])
def test_a_misspelt_word_for_budgets_is_refused_and_not_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HF_GATEWAY_BUDGETS", value)
    for enable in (enable_budgets, budget_watch.enable):
        with pytest.raises(
            ConfigError, match="HF_GATEWAY_BUDGETS is one of 1, on, yes, true, require, or one of 0, off"
        ):
            enable("sqlite:///never-opened.sqlite")


@pytest.mark.parametrize(("value", "strict"), [("require", True), (" Require ", True), ("1", False), ("", False)])
def test_whether_nothing_is_sent_before_the_budgets_are_known_is_read_from_the_environment(
    office: Office, monkeypatch: pytest.MonkeyPatch, value: str, strict: bool
) -> None:
    made: list[bool] = []

    class Noted(BudgetWatcher):
        def __init__(self, url: str, *, strict: bool = False, **options: Any) -> None:
            made.append(strict)
            super().__init__(url, strict=strict, **options)

    monkeypatch.setattr(budget_watch, "BudgetWatcher", Noted)
    monkeypatch.setenv("HF_GATEWAY_BUDGETS", value)
    try:
        budget_watch.enable(office.url)
        budget_watch.disable()
        budget_watch.enable(office.url, strict=not strict)
    finally:
        budget_watch.disable()
    assert made == [strict, not strict]
