"""What holds for every installed task: a row with its units and cost, and a budget that refuses what would exceed it."""

import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.errors import BudgetExceeded
from hf_gateway.ledger.budget import ALL_CALLS, Budget
from hf_gateway.ledger.budget_watch import BudgetWatcher
from hf_gateway.ledger.prices import PARTS, Price, PriceEntry
from hf_gateway.tasks.registry import find_task, task_names
from hf_gateway.values.task_facts import TOKEN_UNITS, facts_of
from tests.servers.loopback import Loopback
from tests.support.databases import a_ledger
from tests.support.late import COLLECTED
from tests.support.ledgers import kept, rows
from tests.support.sample_calls import FORMS, Sample, sample_of

if COLLECTED:
    from hf_gateway.ledger import budgets, models, store


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with a_ledger("sqlite", tmp_path) as made:
        yield made


@pytest.fixture(params=task_names())
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sample(task: str) -> Sample:
    return sample_of(task)


@pytest.fixture
def server(sample: Sample) -> Iterator[Loopback]:
    with sample.server() as made:
        yield made


def set_price(url: str, task: str, sample: Sample, gateway: Any) -> Decimal:
    """Set a price of 0.001 for each unit that the call uses, and return what the call costs."""
    usd = Decimal("0.001")
    parts = {part: usd * 10**6 if unit in TOKEN_UNITS else usd for part, unit in PARTS.items() if unit in sample.uses}
    with store.open_ledger(url) as engine:
        models.set_entry(engine, PriceEntry("*", task, gateway.targets[0].label, Price(**parts)))
    return usd * sum(sample.uses.values())


@pytest.mark.parametrize("form", FORMS)
def test_a_call_leaves_a_row_with_its_units_and_its_cost(
    url: str, task: str, form: str, sample: Sample, server: Loopback
) -> None:
    assert set(sample.uses) <= set(facts_of(task).units)
    with sample.gateway(task, server) as gateway:
        cost = set_price(url, task, sample, gateway)
        with kept(url) as ledger:
            sample.call(gateway, form)
            assert ledger.flush()
    (request,), (attempt,) = rows(url, kind="request"), rows(url, kind="attempt")
    for row in (request, attempt):
        assert (row["task"], row["status"]) == (task, "ok")
        assert {unit: row[unit] for unit in sample.uses} == sample.uses
        assert (row["cost_usd"], row["cost_source"]) == (cost, "configured")
    others = {"documents", "images", "seconds"} - set(facts_of(task).units)
    assert {unit: attempt[unit] for unit in others} == dict.fromkeys(others)


@pytest.mark.parametrize("form", FORMS)
def test_a_budget_refuses_the_call_that_would_exceed_it_and_counts_what_was_spent(
    url: str, task: str, form: str, sample: Sample, server: Loopback
) -> None:
    watcher = BudgetWatcher(url)
    try:
        with store.open_ledger(url) as engine, sample.gateway(task, server) as gateway:
            cost = set_price(url, task, sample, gateway)
            budgets.set_budget(engine, Budget(ALL_CALLS, "day", Decimal("0.0001")))
            assert watcher.sync()
            with pytest.raises(BudgetExceeded) as refused:
                sample.call(gateway, form)
            assert server.count(sample.path) == 0, "nothing is sent"
            needed = refused.value.needed
            assert needed is not None
            assert needed >= cost, "what is reserved is at least what the call takes"

            budgets.set_budget(engine, Budget(ALL_CALLS, "day", needed))
            assert watcher.sync()
            sample.call(gateway, form)
            assert watcher.sync()
            (status,) = budgets.budget_statuses(engine, time.time())
            assert status.spent == cost

            sent = server.count(sample.path)
            with pytest.raises(BudgetExceeded):
                sample.call(gateway, form)
            assert server.count(sample.path) == sent
    finally:
        watcher.close()


def test_where_time_is_paid_for_the_most_that_a_call_may_take_is_reserved(
    url: str, task: str, sample: Sample, server: Loopback
) -> None:
    watcher = BudgetWatcher(url)
    try:
        with store.open_ledger(url) as engine, sample.gateway(task, server) as gateway:
            label = gateway.targets[0].label
            models.set_entry(engine, PriceEntry("*", task, label, Price(second=Decimal("0.01"))))
            budgets.set_budget(engine, Budget(ALL_CALLS, "day", Decimal("0.1")))
            assert watcher.sync()
            with pytest.raises(BudgetExceeded) as refused:
                sample.call(gateway, "blocking")
            assert refused.value.needed == Decimal("0.01") * Decimal(gateway.settings.timeout)
    finally:
        watcher.close()


def test_the_command_line_knows_the_task_by_each_of_its_names(
    url: str, task: str, sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    from hf_gateway.cli import main

    flags = {"documents": "--per-document", "images": "--per-image", "input_tokens": "--input"}
    unit = next(unit for unit in flags if unit in sample.uses)
    assert main(["models", "add", "org/model", "--task", task, flags[unit], "1", "--ledger", url]) == 0
    for name in (task, facts_of(task).price_task, *facts_of(task).aliases):
        capsys.readouterr()
        assert main(["models", "list", "org/model", "--task", name, "--ledger", url]) == 0
        assert "1 line," in capsys.readouterr().out
    assert main(["usage", "--task", task, "--ledger", url]) == 0
    assert "no calls were recorded" in capsys.readouterr().out
    assert find_task(task).hub.facts is facts_of(task)
