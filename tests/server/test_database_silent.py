"""A database's server that is there and does not answer, as behind a pooler that was paused, or while its disk hangs."""

import threading

import pytest

from tests.support.gateway_server import HASH_CHAIN, START_S, gateway_server
from tests.support.late import COLLECTED
from tests.support.ledgers import Proxy, in_schema, schema
from tests.support.server_keys import bearer, make_key

if COLLECTED:
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
