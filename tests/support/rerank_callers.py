"""Both forms of a call for a ranking behind one name."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from hf_gateway import RerankGateway, RerankResult
from hf_gateway.testing import ManualClock
from tests.support.timed import shortest, within

MODEL = "test/reranker"
FORMS = ("sync", "async")


class RerankCaller:
    """A rerank chain, called in one of FORMS. clock: stands still until somebody waits; observed: the results so far."""

    def __init__(self, form: str, targets: Sequence[Any], **settings: Any) -> None:
        """Build the chain."""
        self.form = form
        self.clock = settings.pop("clock", None) or ManualClock()
        self.limit = shortest(settings)
        self.gateway = RerankGateway(targets=list(targets), clock=self.clock, **{"model": MODEL, **settings})

    def rerank(self, query: Any, documents: Iterable[Any], **call: Any) -> RerankResult:
        """Rank; a limit of less than a second that was set has to hold."""
        with within(self.limit):
            if self.form == "async":
                return asyncio.run(self.gateway.arerank(query, documents, **call))
            return self.gateway.rerank(query, documents, **call)
