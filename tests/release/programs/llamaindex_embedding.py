"""What a user writes with `HFGatewayEmbedding`: an index, a retriever, its settings."""

from typing import assert_type

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.schema import NodeWithScore

from hf_gateway import Target
from hf_gateway.errors import GatewayError
from llamaindex_hf_gateway import HFGatewayEmbedding


def model(url: str | None = None) -> HFGatewayEmbedding:
    targets: list[str | Target] = [Target("tei", url=url), "local"] if url else ["local"]
    return HFGatewayEmbedding(model_name="all-MiniLM-L6-v2", targets=targets, embed_batch_size=32, timeout=20)


def search(texts: list[str], question: str) -> list[tuple[str, float]]:
    index = VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=model())
    nodes: list[NodeWithScore] = index.as_retriever(similarity_top_k=2).retrieve(question)
    return [(node.get_content(), node.get_score()) for node in nodes]


def similarity(one: str, other: str) -> float:
    embedding = model()
    first = assert_type(embedding.get_query_embedding(one), list[float])
    second = embedding.get_text_embedding(other)
    return embedding.similarity(first, second)


async def count(texts: list[str]) -> int:
    embedding = model()
    vectors: list[list[float]] = await embedding.aget_text_embedding_batch(texts)
    query = assert_type(await embedding.aget_query_embedding(texts[0]), list[float])
    return len(vectors) + len(query)


def report() -> str:
    try:
        embedding = assert_type(HFGatewayEmbedding.from_config("docs", embed_batch_size=8), HFGatewayEmbedding)
        states = [f"{status.target}: {status.breaker}" for status in embedding.gateway.status()]
        return f"{embedding.model_name} {embedding.timeout} {embedding.dimensions} {states}"
    except GatewayError as error:
        return ", ".join(str(attempt.target) for attempt in error.attempts)
