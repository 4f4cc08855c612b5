"""What is kept of a request: its row in the ledger, and its place in the caller's trace."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway_server import HASH_CHAIN, ServerProcess, gateway_server
from tests.support.late import COLLECTED
from tests.support.ledgers import rows
from tests.support.server_keys import bearer, make_key, public_part

if COLLECTED:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from hf_gateway import telemetry

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_row_names_the_request_the_key_and_the_tenant() -> None:
    url = f"sqlite:///{Path.cwd() / 'calls.sqlite'}"
    key = make_key(url, tenant="acme")
    config = HASH_CHAIN + f'[server]\ndatabase = "{url}"\n'
    with ServerProcess(config) as process, process.client(headers=bearer(key)) as client:
        answer = client.post("/v1/embeddings", json={"input": ["secret words", "more of them"]})
        refused = client.post("/v1/embeddings", json={"input": ["", "x"]})
        assert (answer.status_code, refused.status_code) == (200, 400)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    (row,) = rows(url, kind="request")
    assert row["http_request_id"] == answer.headers["x-request-id"]
    assert (row["caller_key"], row["tenant"], row["chain"]) == (public_part(key), "acme", "docs")
    assert row["prompt"] is None
    assert "secret words" not in Path("calls.sqlite").read_bytes().decode("latin-1")
    assert key not in Path("calls.sqlite").read_bytes().decode("latin-1")


@pytest.fixture
def spans() -> "Iterator[InMemorySpanExporter]":
    """The spans of this process."""
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable_otel(tracers)
    yield exporter
    telemetry.disable()


def test_spans_are_children_of_the_callers(spans: "InMemorySpanExporter") -> None:
    with gateway_server() as server, server.client() as client:
        client.post("/v1/embeddings", json={"input": "x"}, headers={"traceparent": PARENT})
        client.post("/v1/embeddings", json={"input": "y"})
        client.post("/v1/embeddings", json={"input": "z"}, headers={"traceparent": "not one"})
    first, second, third = [each for each in spans.get_finished_spans() if each.name == "huggingface.generate"]
    assert first.context is not None
    assert f"{first.context.trace_id:032x}" == PARENT.split("-")[1]
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == PARENT.split("-")[2]
    assert second.parent is third.parent is None


def test_calls_that_differ_in_their_request_alone_may_share_one() -> None:
    from hf_gateway.observing.tags import Tags

    assert Tags("acme", key="k", request="a") == Tags("acme", key="k", request="b")
    assert hash(Tags("acme", request="a")) == hash(Tags("acme", request="b"))
    assert Tags("acme", key="k") != Tags("acme", key="l")
