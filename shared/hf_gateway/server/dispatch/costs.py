"""What one request of the server has cost, by the same rules and prices as its rows in the ledger."""

import contextlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from hf_gateway.ledger.cost import cost_of, total
from hf_gateway.observing import observer
from hf_gateway.observing.observer import Observation
from hf_gateway.observing.record import RequestRecord
from hf_gateway.server.dispatch.call import Call
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.problems import Problem
from hf_gateway.values.result import Result


class CostMeter:
    """Collects the gateways' calls that one request of the server causes."""

    def __init__(self, request_id: str) -> None:
        """request_id: the id of the server's request."""
        self._request_id = request_id
        self._records: list[RequestRecord] = []

    def begin(self, observation: Observation) -> None:
        """Do nothing: a call is counted when it ends."""

    def end(self, observation: Observation) -> None:
        """Keep the record of a call of this request."""
        if observation.tags.request == self._request_id:
            self._records.append(observation.record())

    async def amount(self, call: Call) -> Decimal | None:
        """Return the cost of the calls so far in USD; None if a price or a count is unknown.

        call: the request.
        """
        try:
            prices = await call.state.database.in_thread(lambda: call.state.price_book.prices())
        except Problem:
            return None  # the answer is there, whatever the database of prices does
        costs = [cost_of(tried, each.task.name, prices) for each in self._records for tried in each.attempts]
        return total(costs)[0]


@contextlib.contextmanager
def metered(call: Call) -> Iterator[CostMeter]:
    """Collect the costs of the calls that are made within, for one request."""
    meter = CostMeter(call.request_id)
    observer.register(meter)
    try:
        yield meter
    finally:
        observer.unregister(meter)


def details_of(chain: Chain, result: Result, cost: Decimal | None) -> dict[str, Any]:
    """Return what `include_details` adds to an answer: the attempts at each target, without addresses, and the cost.

    Args:
        chain: that answered.
        result: of its call.
        cost: in USD; None if it is unknown.
    """
    attempts = [
        {
            "target": chain.served_by(each.target),
            "outcome": each.outcome,
            "error": None if each.error is None else chain.public(each.error),
            "seconds": round(each.seconds, 3),
            "calls": each.calls,
        }
        for each in result.attempts
    ]
    return {"attempts": attempts, "cost_usd": None if cost is None else float(cost)}
