"""Clients that leave at random moments: nothing is held for them afterwards, neither here nor at the target."""

import contextlib
from decimal import Decimal
from pathlib import Path

import pytest

from tests.server.faults.leaving import in_flight, leaving, reserved
from tests.server.faults.load import KINDS, ask, wait_until
from tests.servers.loopback import Normal, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, ServerProcess, chat_chain
from tests.support.late import COLLECTED
from tests.support.redis_servers import redis_server
from tests.support.server_keys import ALL, make_key

if COLLECTED:
    from hf_gateway.ledger.budget import Budget
    from hf_gateway.ledger.budgets import set_budget
    from hf_gateway.ledger.models import set_entry
    from hf_gateway.ledger.prices import Price, PriceEntry
    from hf_gateway.ledger.store import open_ledger

CHAT = "/v1/chat/completions"
IDLE = 3
"""Connections that may stay open for later requests."""
SMALL = 200
"""Clients that leave, for each way of keeping counts."""


def disconnects(folder: Path, upstream: FakeOpenAI, times: int, *, shared: bool) -> tuple[Decimal, int]:
    """Let clients leave; returns what budgets hold afterwards, in US dollars and in leases, which is nothing.

    shared: limits in a Redis and the ledger in PostgreSQL, rather than in the process and in a file.
    """
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(a_ledger("postgresql" if shared else "sqlite", folder))
        redis = stack.enter_context(redis_server(folder)) if shared else None
        key = make_key(database, scopes=ALL, parallel=64)
        with open_ledger(database) as engine:
            set_budget(engine, Budget("*", "day", Decimal(1000)))
            for task in ("feature-extraction", "text-generation"):
                set_entry(engine, PriceEntry("*", task, f"openai:{upstream.url}", Price(Decimal(1), Decimal(1))))
        own = f'[server]\ndatabase = "{database}"\n' + (f'redis = "{redis.url}"\n' if redis else "")
        process = stack.enter_context(ServerProcess(HASH_CHAIN + chat_chain(upstream.url) + own))
        client = stack.enter_context(process.client())
        # Answers that wait until their client leaves, at their beginning and after some events, and in between such as end.
        upstream.fail(*(Normal() if turn % 4 == 3 else stall_stream(turn % 4) for turn in range(times)), path=CHAT)
        with leaving(process.url, times, 1, key):
            pass
        wait_until(lambda: in_flight(client, key) == 0, "requests are still under way")
        upstream.recover()
        wait_until(lambda: upstream.open_connections <= IDLE, f"{upstream.open_connections} connections are left")
        answers = [ask(client, kind, key) for kind in KINDS]
        assert answers == ["200"] * len(KINDS)
        wait_until(lambda: in_flight(client, key) == 0, "requests are still under way")
        if redis is not None:
            wait_until(lambda: redis.names("hf-gateway:limits:leases/*").count(b"\r\n") <= 1, "slots are still taken")
        process.end()
        wait_until(lambda: upstream.open_connections == 0, f"{upstream.open_connections} connections are left")
        assert "Traceback" not in process.log, process.log
        return reserved(database)


@pytest.mark.parametrize("shared", [False, True], ids=["one process", "PostgreSQL and Redis"])
def test_clients_that_leave_at_random_moments_leave_nothing(shared: bool, primary: FakeOpenAI, tmp_path: Path) -> None:
    assert disconnects(tmp_path, primary, SMALL, shared=shared) == (0, 0)
