"""What text-embeddings-inference's own failures and bad answers lead to for sparse embeddings, counting the requests.

The rows of all tasks are in `tests/tasks/test_failure_table.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from hf_gateway import errors
from tests.servers.loopback import Fault, Normal, Reply, cut, drip, garbage, html, redirect
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
TABLE = [
    Row("InvalidRequest: 422", Reply(422, "inputs: data did not match any variant"), (1, 0), "InvalidRequest"),
    Row("ContextOverflow: 422", TOO_LONG, (1, 1), "ContextOverflow", texts=("one",)),
    Row("Overloaded: 503", error("Unhealthy", "no worker"), (2, 1), "Overloaded"),
    Row("ServerError: 424", error("Backend", "Backend error: out of memory"), (2, 1), "ServerError"),
    Row("ConnectFailed: cut short", cut(b'[[{"index":'), (2, 1), "ConnectFailed"),
    Row("AttemptTimedOut: trickles", partial(drip, every=0.02), (1, 1), "AttemptTimedOut", timeout=1.0),
    Row("BadResponse: garbage", garbage(), (1, 1), "BadResponse"),
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
    return row.answer() if isinstance(row.answer, partial) else row.answer


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
