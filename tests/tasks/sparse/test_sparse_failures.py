"""The failure table for sparse embeddings, row by row, counting the requests that reach each server."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import pytest

from hf_gateway import errors
from tests.servers.loopback import Fault, Normal, Reply, cut, dead_url, disconnect, drip, hang, html, redirect
from tests.servers.router import loading, rate_limited
from tests.servers.tei import FakeTEI, error
from tests.support.sparse import FORMS, PATH, Make, SparseCall, chain, splade, weights


@dataclass(frozen=True)
class Row:
    """What one failure of the first of two servers leads to."""

    name: str
    answer: Fault | Callable[[], Fault]
    requests: tuple[int, int]
    """How many reach the first server, and the second."""
    alone: str | None = None
    """The error where there is no second server, or none that is asked."""
    timeout: float = 30.0
    texts: tuple[str, ...] = ("one", "two words")


TOO_LONG = error("Validation", "Input validation error: `inputs` must have less than 256 tokens. Given: 812")
TOO_LARGE = Reply(413, "Failed to buffer the request body: length limit exceeded")
FILTERED = "The request was rejected by our content policy (violence)"
GATED = "Access to model x is restricted, it is a gated model"
NO_EMBEDDINGS = "this model does not support embeddings"
TABLE = [
    Row("InvalidRequest: 400", Reply(400, {"error": "inputs must be strings"}), (1, 0), "InvalidRequest"),
    Row("InvalidRequest: 422", Reply(422, "inputs: data did not match any variant"), (1, 0), "InvalidRequest"),
    Row("ContentFiltered: 400", Reply(400, {"error": FILTERED}), (1, 0), "ContentFiltered"),
    Row("ContextOverflow: 422", TOO_LONG, (1, 1), "ContextOverflow", texts=("one",)),
    Row("ContextOverflow: 413, which cannot be cut", TOO_LARGE, (1, 1), "ContextOverflow", texts=("one",)),
    Row("AuthenticationFailed: 401", Reply(401), (1, 1), "AuthenticationFailed"),
    Row("PermissionDenied: 403", Reply(403, {"error": "insufficient permissions"}), (1, 1), "PermissionDenied"),
    Row("GatedModel: 403", Reply(403, {"error": GATED}), (1, 1), "GatedModel"),
    Row("ModelNotFound: 404", Reply(404, {"error": "model 'x' not found"}), (1, 1), "ModelNotFound"),
    Row("PaymentRequired: 402", Reply(402, {"error": "You have exceeded your credits"}), (1, 1), "PaymentRequired"),
    Row("Unsupported: 501", Reply(501, {"error": NO_EMBEDDINGS}), (1, 1), "Unsupported"),
    Row("Unsupported: 500 embeddings", Reply(500, {"error": NO_EMBEDDINGS}), (1, 1), "Unsupported"),
    Row("Overloaded: 503", error("Unhealthy", "no worker"), (2, 1), "Overloaded"),
    Row("Overloaded: 529", Reply(529, {"error": "no"}), (2, 1), "Overloaded"),
    Row("ServerError: 500", Reply(500, {"error": "no"}), (2, 1), "ServerError"),
    Row("ServerError: 502", Reply(502, {"error": "no"}), (2, 1), "ServerError"),
    Row("ServerError: 424", error("Backend", "Backend error: out of memory"), (2, 1), "ServerError"),
    Row("ConnectFailed: closed", disconnect(), (2, 1), "ConnectFailed"),
    Row("ConnectFailed: cut short", cut(b'[[{"index":'), (2, 1), "ConnectFailed"),
    Row("AttemptTimedOut: silent", hang, (1, 1), "AttemptTimedOut", timeout=0.3),
    Row("AttemptTimedOut: trickles", partial(drip, every=0.02), (1, 1), "AttemptTimedOut", timeout=0.3),
    Row("BadResponse: HTML", html(200), (1, 1), "BadResponse"),
    Row("BadResponse: no vectors", Reply(200, {"ok": True}), (1, 1), "BadResponse"),
    Row("BadResponse: wrong count", Reply(200, [[]]), (1, 1), "BadResponse"),
    Row("BadResponse: redirect", redirect("http://127.0.0.2:9/embed_sparse"), (1, 1), "BadResponse"),
]


@pytest.fixture(params=FORMS)
def make(request: pytest.FixtureRequest) -> Make:
    return partial(SparseCall, request.param)


@pytest.fixture
def servers() -> Iterator[tuple[FakeTEI, FakeTEI]]:
    with splade() as primary, splade() as backup:
        yield primary, backup


def fault(row: Row) -> Any:
    return row.answer() if isinstance(row.answer, FunctionType | partial) else row.answer


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_row_with_a_second_server(make: Make, servers: tuple[FakeTEI, FakeTEI], row: Row) -> None:
    primary, backup = servers
    primary.always(fault(row), path=PATH)
    call = make(chain(primary, backup), attempt_timeout=row.timeout)
    if row.requests[1]:
        assert call.served_by(row.texts) == (f"tei:{backup.url}",)
    else:
        call.refused(getattr(errors, row.alone or ""), row.texts)
    assert (primary.count(PATH), backup.count(PATH)) == row.requests


@pytest.mark.parametrize("row", [row for row in TABLE if row.requests[1]], ids=lambda row: row.name)
def test_row_alone(make: Make, servers: tuple[FakeTEI, FakeTEI], row: Row) -> None:
    primary, _ = servers
    primary.always(fault(row), path=PATH)
    make(chain(primary), attempt_timeout=row.timeout).refused(getattr(errors, row.alone or ""), row.texts)
    assert primary.count(PATH) == row.requests[0]


@pytest.mark.parametrize("row", [row for row in TABLE if row.name.startswith("Unsupported")], ids=lambda row: row.name)
def test_what_a_server_cannot_do_does_not_rest_it(make: Make, servers: tuple[FakeTEI, FakeTEI], row: Row) -> None:
    primary, backup = servers
    primary.always(fault(row), path=PATH)
    call = make(chain(primary, backup))
    for asked in range(1, 6):
        assert call.served_by() == (f"tei:{backup.url}",)
        assert (primary.count(PATH), backup.count(PATH)) == (asked, asked)
    assert call.gateway.status()[0].breaker == "closed"
    primary.recover()
    assert call.served_by() == (f"tei:{primary.url}",)


def test_a_refused_connection_is_tried_once_more_and_then_the_next(
    make: Make, servers: tuple[FakeTEI, FakeTEI]
) -> None:
    _, backup = servers
    result = make([f"tei:{dead_url()}", *chain(backup)]).embed(["one"])
    assert [(attempt.outcome, attempt.calls) for attempt in result.attempts] == [("failed", 2), ("served", 1)]


@pytest.mark.parametrize("answer", [rate_limited(20), loading("m", 20.0)], ids=["429", "loading"])
def test_a_pause_goes_to_the_next_server_and_alone_is_waited_out(
    make: Make, servers: tuple[FakeTEI, FakeTEI], answer: Reply
) -> None:
    primary, backup = servers
    primary.fail(answer, path=PATH)
    assert make(chain(primary, backup)).served_by() == (f"tei:{backup.url}",)
    primary.fail(answer, path=PATH)
    call = make(chain(primary))
    assert call.served_by() == (f"tei:{primary.url}",)
    assert call.clock.waited == [20]


def test_three_failures_open_the_breaker(make: Make, servers: tuple[FakeTEI, FakeTEI]) -> None:
    primary, backup = servers
    primary.always(Reply(500, {"error": "no"}), path=PATH)
    call = make(chain(primary, backup), max_retries=0)
    for _ in range(5):
        call.served_by()
    assert (primary.count(PATH), backup.count(PATH)) == (3, 5)
    assert call.gateway.status()[0].breaker == "open"


def test_a_fallback_in_the_middle_of_a_list_goes_on_there_in_order(
    make: Make, servers: tuple[FakeTEI, FakeTEI]
) -> None:
    primary, backup = servers
    texts = [f"text {number}" for number in range(100)]
    call = make(chain(primary, backup), max_retries=0)
    primary.fail(Normal(), Reply(500, {"error": "no"}), path=PATH)
    result = call.embed(texts)
    assert [vector.to_dict() for vector in result.vectors] == weights(texts)
    assert result.served_by == (f"tei:{primary.url}", f"tei:{backup.url}")
    sent = [[request.json["inputs"] for request in server.requests if request.path == PATH] for server in servers]
    assert sent[0] == [texts[:32], texts[32:64]]
    assert sent[1] == [texts[32:64], texts[64:96], texts[96:]]


def test_the_error_of_a_chain_lists_every_server_with_its_reason(make: Make, servers: tuple[FakeTEI, FakeTEI]) -> None:
    primary, backup = servers
    primary.always(Reply(401), path=PATH)
    backup.always(html(200), path=PATH)
    refused = make(chain(primary, backup)).refused(errors.AllTargetsFailed)
    assert [type(each).__name__ for each in refused.errors] == ["AuthenticationFailed", "BadResponse"]
    assert primary.url in str(refused)
    assert backup.url in str(refused)
