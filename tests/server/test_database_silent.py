"""A database's server that is there and does not answer, as behind a pooler that was paused, and work that holds it up."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.gateway_server import HASH_CHAIN, START_S, gateway_server
from tests.support.late import COLLECTED
from tests.support.ledgers import Proxy, in_schema, schema
from tests.support.ledgers import sqlite as sqlite  # a fixture
from tests.support.server_keys import bearer, make_key
from tests.support.ways import until

if COLLECTED:
    from hf_gateway.ledger import usage
    from hf_gateway.ledger.store import open_engine, upgrade
    from hf_gateway.server.access import authenticator, database


@pytest.mark.slow
def test_callers_are_told_and_the_server_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their requests hung, and so did the server at SIGTERM, until it was killed."""
    monkeypatch.setattr(authenticator, "MEMORY_S", 0.0)
    monkeypatch.setattr(database, "CLOSE_S", 0.1)
    with schema() as name, Proxy() as proxy:
        proxy.start()
        engine = open_engine(in_schema(name))
        upgrade(engine)
        engine.dispose()
        headers = bearer(make_key(in_schema(name)))
        config = f'{HASH_CHAIN}[server]\ndatabase = "{in_schema(name, proxy.port)}&connect_timeout=2"\n'
        with gateway_server(config) as server, server.client(headers=headers) as client:
            assert client.post("/v1/embeddings", json={"input": "x"}).status_code == 200
            server.state.database.answer_seconds = 0.2
            proxy.silent.set()
            for _ in range(6):  # more than there are threads
                refused = client.post("/v1/embeddings", json={"input": "x"})
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_unavailable")
                assert refused.headers["retry-after"] == "1"
            assert client.get("/livez").status_code == 200
            watch = threading.Timer(START_S / 2, proxy.stop)
            watch.start()
        assert not watch.finished.is_set(), "the server waited for its database to end"
        watch.cancel()


def test_reports_that_take_long_hold_up_no_look_up_of_a_key(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four reports over a large ledger, which any key with a tenant may ask for, and no key was found any more."""
    begun, go_on = threading.Semaphore(0), threading.Event()
    report = usage.usage_report

    def slow(*given: Any) -> Any:
        begun.release()
        assert go_on.wait(START_S)
        return report(*given)

    monkeypatch.setattr(usage, "usage_report", slow)
    reader, other = (bearer(make_key(sqlite, tenant="acme")) for _ in range(2))
    with (
        gateway_server(f'{HASH_CHAIN}[server]\ndatabase = "{sqlite}"\n') as server,
        server.client() as client,
        ThreadPoolExecutor(6) as threads,
    ):
        server.state.database.answer_seconds = 5.0
        reports = [threads.submit(client.get, "/admin/usage", headers=reader) for _ in range(6)]
        try:
            assert begun.acquire(timeout=START_S)
            until(lambda: [each.caller.tenant for each in list(server.state.in_flight.values())] == ["acme"] * 6)
            answer = client.post("/v1/embeddings", json={"input": "x"}, headers=other)
        finally:
            go_on.set()
        assert answer.status_code == 200
        assert [each.result().status_code for each in reports] == [200] * 6
