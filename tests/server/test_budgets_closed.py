"""Budgets over HTTP while what keeps them cannot be written: nothing is sent that they could not count."""

import contextlib
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.gateway_server import ServerProcess, chat_chain
from tests.support.late import COLLECTED
from tests.support.ledgers import locked
from tests.support.server_keys import bearer, make_key, public_part

if COLLECTED:
    import sqlite3

    from hf_gateway.ledger import budget_watch
    from hf_gateway.ledger.budget import Budget
    from hf_gateway.ledger.budgets import set_budget
    from hf_gateway.ledger.models import set_entry
    from hf_gateway.ledger.prices import Price, PriceEntry
    from hf_gateway.ledger.store import open_ledger

CHAT = {"messages": [{"role": "user", "content": "x"}]}


@contextlib.contextmanager
def full(url: str) -> Iterator[None]:
    """Refuse each write to what budgets reserve, as SQLite does on a full disk."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as database:
        for event in ("INSERT", "UPDATE"):
            refusal = "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
            database.execute(f"CREATE TRIGGER full_{event} BEFORE {event} ON budget_leases {refusal}")
        yield
        for event in ("INSERT", "UPDATE"):
            database.execute(f"DROP TRIGGER full_{event}")


@pytest.mark.parametrize("hindrance", [locked, full], ids=["held by another process", "on a full disk"])
def test_a_budget_that_cannot_be_counted_lets_nothing_through_and_others_go_on(
    hindrance: Callable[[str], contextlib.AbstractContextManager[None]], primary: FakeOpenAI, tmp_path: Path
) -> None:
    with a_ledger("sqlite", tmp_path) as url:
        limited, free = make_key(url), make_key(url)
        with open_ledger(url) as engine:
            set_budget(engine, Budget(f"key:{public_part(limited)}", "day", Decimal(1000)))
            price = Price(Decimal(1), Decimal(100_000))
            set_entry(engine, PriceEntry("*", "text-generation", f"openai:{primary.url}", price))
        config = f'{chat_chain(primary.url)}[server]\ndatabase = "{url}"\n'
        with ServerProcess(config) as process, process.client() as client:

            def ask(key: str, **more: object) -> int:
                answer = client.post("/v1/chat/completions", json={**CHAT, **more}, headers=bearer(key))
                if answer.status_code != 200:
                    assert answer.json()["error"]["code"] == "budget_unavailable"
                    assert "nothing was sent" in answer.json()["error"]["message"]
                return answer.status_code

            assert (ask(limited, max_tokens=1), ask(free)) == (200, 200)
            asked = len(primary.requests)
            with hindrance(url):
                # More than is reserved at a time.
                assert ask(limited, max_tokens=4_000) == 503
                assert len(primary.requests) == asked
                assert ask(free, max_tokens=4_000) == 200
            assert ask(limited, max_tokens=4_000) == 200


def test_a_file_that_is_held_by_another_process_at_the_start_holds_no_answer_and_its_budgets_count(
    primary: FakeOpenAI, tmp_path: Path
) -> None:
    with a_ledger("sqlite", tmp_path) as url:
        limited, free = make_key(url), make_key(url)
        with open_ledger(url) as engine:
            set_budget(engine, Budget(f"key:{public_part(limited)}", "day", Decimal(1000)))
            # Without a price of what is generated, a call under a budget is refused before anything is written.
            set_entry(engine, PriceEntry("*", "text-generation", f"openai:{primary.url}", Price(Decimal(1))))
        config = f'{chat_chain(primary.url)}[server]\ndatabase = "{url}"\n'
        with locked(url), ServerProcess(config) as process, process.client() as client:
            began = time.monotonic()
            answer = client.post("/v1/chat/completions", json=CHAT, headers=bearer(free))
            assert (answer.status_code, time.monotonic() - began < budget_watch.DATABASE_TIMEOUT_S * 0.9) == (200, True)
            asked = len(primary.requests)
            refused = client.post("/v1/chat/completions", json=CHAT, headers=bearer(limited))
            assert (refused.status_code, len(primary.requests)) == (402, asked), refused.text
            assert "budgets are not enforced" not in process.log
