"""What a user writes with `HFGatewayEmbeddings`: a store of documents, its settings, its errors."""

import asyncio
from dataclasses import dataclass
from typing import assert_type

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from hf_gateway import Target
from hf_gateway.errors import GatewayError, KeyMissing
from hf_gateway.tasks.status import TargetStatus
from langchain_hf_gateway import HFGatewayEmbeddings


@dataclass(frozen=True)
class Found:
    text: str
    score: float


class Shelf:
    def __init__(self, url: str | None = None) -> None:
        targets: list[str | Target] = [Target("tei", url=url)] if url else ["local", "hash"]
        self.embeddings = HFGatewayEmbeddings(model="all-MiniLM-L6-v2", targets=targets, timeout=20, max_retries=1)
        self.store = InMemoryVectorStore(self.embeddings)

    def add(self, texts: list[str]) -> list[str]:
        return self.store.add_documents([Document(page_content=text) for text in texts])

    def search(self, question: str, count: int = 4) -> list[Found]:
        pairs = self.store.similarity_search_with_score(question, k=count)
        return [Found(document.page_content, score) for document, score in pairs]

    async def similarity(self, one: str, other: str) -> float:
        first, second = await asyncio.gather(self.embeddings.aembed_query(one), self.embeddings.aembed_query(other))
        assert_type((first, second), tuple[list[float], list[float]])
        return sum(a * b for a, b in zip(first, second, strict=True))


def report(shelf: Shelf) -> str:
    embeddings = shelf.embeddings
    lines = [f"{embeddings.model} by {[target.kind for target in embeddings.targets or ()]}, {embeddings.timeout} s"]
    states = assert_type(embeddings.gateway.status(), list[TargetStatus])
    return "\n".join([*lines, *(f"{status.target}: {status.breaker}" for status in states)])


def dimension(texts: list[str]) -> int | None:
    try:
        embeddings = HFGatewayEmbeddings.from_config("docs", timeout=5)
        assert_type(embeddings, HFGatewayEmbeddings)
        vectors = assert_type(embeddings.embed_documents(texts), list[list[float]])
        counted = sum(1 for _ in embeddings.embed_stream(texts))
    except KeyMissing as error:
        return assert_type(error.status, int | None)
    except GatewayError as error:
        return len(assert_type([attempt.outcome for attempt in error.attempts], list[str]))
    return len(vectors[0]) if counted else None
