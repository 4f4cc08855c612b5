"""Both forms of a call behind one name, so that each behaviour is tested sync and async with the same lines."""

import asyncio
from collections.abc import Sequence
from typing import Any

import langchain_hf_gateway
from hf_gateway.gateway import Gateway
from hf_gateway.testing import ManualClock
from tests.support.timed import shortest, within

MODEL = "test/model"
"""A model that no file describes, so that fakes of any dimension may serve it."""


class Caller:
    """An embedder called sync or async. clock: stands still until somebody waits."""

    def __init__(self, asynchronous: bool, targets: Sequence[Any], **settings: Any) -> None:
        """Build HFGatewayEmbeddings over the targets."""
        self.asynchronous = asynchronous
        self.clock = settings.pop("clock", None) or ManualClock()
        self.limit = shortest(settings)
        settings = {"model": MODEL, **settings}
        self.gateway = Gateway(targets=list(targets), clock=self.clock, **settings)
        self.embeddings = langchain_hf_gateway.HFGatewayEmbeddings.from_gateway(self.gateway)

    def documents(self, texts: list[str]) -> list[list[float]]:
        """Embed as documents; a limit of less than a second that was set has to hold."""
        with within(self.limit):
            if self.asynchronous:
                return asyncio.run(self.embeddings.aembed_documents(texts))
            return self.embeddings.embed_documents(texts)

    def query(self, text: str) -> list[float]:
        """Embed as a query."""
        if self.asynchronous:
            return asyncio.run(self.embeddings.aembed_query(text))
        return self.embeddings.embed_query(text)


def chain(*servers: Any) -> list[str]:
    """Name OpenAI-compatible servers as targets."""
    return [f"openai:{server.url}" for server in servers]
