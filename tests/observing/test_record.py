"""The record of a request: plain values that a watcher may keep, and what the service of its task adds when it is asked for."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from hf_gateway import Gateway
from hf_gateway.errors import GatewayError
from hf_gateway.ledger.cost import cost_ceiling
from hf_gateway.ledger.prices import Price, PriceEntry, Prices
from hf_gateway.ledger.rows import Ids, LedgerEntry
from hf_gateway.observing import observer
from hf_gateway.observing.observer import Observation, ObservedCall
from hf_gateway.observing.record import RequestDetails, RequestRecord
from hf_gateway.tasks.chat.record import ChatDetails
from hf_gateway.tasks.embedding.record import EmbeddingDetails
from hf_gateway.values.chat import ChatRequest
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.result import Result
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import TOKEN_UNITS, facts_of
from hf_gateway.values.usage import Usage

FIELDS = {field.name for field in dataclasses.fields(RequestRecord)}


class Keeper:
    """Keeps what it may keep."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def begin(self, observation: Observation) -> None:
        pass

    def end(self, observation: Observation) -> None:
        self.records.append(observation.record())


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    observer.register(made)
    yield made
    observer.unregister(made)


def test_a_record_has_its_own_fields_alone(keeper: Keeper) -> None:
    with Gateway(targets=["hash:8"]) as gateway:
        gateway.embed(["a very private text", "another"])
    (record,) = keeper.records
    assert type(record) is RequestRecord
    assert set(vars(record)) == FIELDS
    assert "private" not in repr(record)
    assert (record.inputs, record.cached_inputs, record.outcome) == (2, 0, "ok")


def test_a_record_of_a_failed_request_keeps_no_traceback(keeper: Keeper) -> None:
    with pytest.raises(GatewayError):
        Gateway("m", ["openai:http://127.0.0.1:9"], max_retries=0).embed(["one", "two"])
    (record,) = keeper.records
    assert (record.outcome, record.error_class) == ("failed", "ConnectFailed")
    (attempt,) = record.attempts
    assert attempt.error is not None
    assert (attempt.error.__traceback__, attempt.error.__context__) == (None, None)


@dataclass(frozen=True, kw_only=True)
class Ranking(Result):
    """A result of a task that the core does not know."""


class RankDetails(RequestDetails[list[str], Ranking]):
    """Says of a request what a package with such a task would."""

    task = facts_of("rank")

    def request_columns(self) -> dict[str, Any]:
        return {"inputs": len(self.request), "asked_model": "own"}

    def ceiling(self) -> Usage:
        return Usage(100, 0)

    def span_attributes(self, *, content: bool) -> dict[str, Any]:
        return {"rank.documents": self.request if content else len(self.request)}


def ranked(details: RequestDetails[Any, Any]) -> Observation:
    """A request that its service served."""
    target = Target("openai", model="m", url="https://api.example.com/v1")
    seen = Observation(
        task=details.task,
        chain=None,
        model="m",
        targets=(target,),
        streamed=False,
        time=1.0,
        began=0.0,
        details=details,
        **details.request_columns(),
    )
    with ObservedCall(seen, lambda: 2.0) as call:
        call.done(Ranking(served_by=target.label, usage=Usage(60, 0, documents=3)))
    return seen


def test_a_task_that_the_core_does_not_know_has_a_row_a_span_and_a_price() -> None:
    seen = ranked(RankDetails(["a", "b", "c"]))
    row = LedgerEntry.of(seen.record(), Ids()).request
    assert (row["task"], row["texts"], row["cached_texts"], row["status"]) == ("rank", 3, None, "ok")
    assert (seen.task.operation, seen.usage.documents) == ("rank", 3)
    assert seen.details.span_attributes(content=False) == {"rank.documents": 3}
    prices = Prices([PriceEntry("own", "rank", seen.targets[0].label, Price(Decimal(1), Decimal(1)))])
    assert cost_ceiling(seen, prices) == (Decimal("0.0001"), True)


def test_a_task_that_says_nothing_of_a_request_is_watched_nevertheless() -> None:
    class Silent(RequestDetails[None, Ranking]):
        task = facts_of("rank")

    seen = ranked(Silent(None))
    assert LedgerEntry.of(seen.record(), Ids()).request["texts"] is None
    assert (seen.details.span_attributes(content=True), seen.details.prompt(), seen.details.answer()) == (
        {},
        None,
        None,
    )
    assert seen.details.ceiling() == Usage()


@pytest.mark.parametrize(
    ("details", "columns", "prompt"),
    [
        (EmbeddingDetails(EmbedRequest(["a", "b"])), {"inputs": 2, "cached_inputs": 0}, ["a", "b"]),
        (ChatDetails(ChatRequest.of("a", model="own")), {"asked_model": "own"}, [{"role": "user", "content": "a"}]),
    ],
    ids=["embedding", "chat"],
)
def test_the_services_fill_columns_that_a_record_has(
    details: RequestDetails[Any, Any], columns: dict[str, Any], prompt: Any
) -> None:
    assert details.request_columns() == columns
    assert columns.keys() <= FIELDS
    assert details.prompt() == prompt
    assert set(details.task.units) <= set(TOKEN_UNITS)
