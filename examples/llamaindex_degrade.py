"""Search by meaning, and by words when no embeddings can be had: an answer from a worse search, never from wrong vectors.

pip install "hf-gateway[llamaindex]" rank-bm25 && python examples/llamaindex_degrade.py
"""

import re

from llama_index.core import VectorStoreIndex
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from rank_bm25 import BM25Okapi

from hf_gateway import EmbeddingUnavailable
from llamaindex_hf_gateway import HFGatewayEmbedding

NODES = [
    TextNode(text="Exceptions are caught with a try statement and its except clause."),
    TextNode(text="A list is sliced with a colon between two positions."),
    TextNode(text="The with statement closes a file when its block ends."),
]


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class MeaningOrWords(BaseRetriever):
    """Asks the index, and keywords when no target can embed the question."""

    def __init__(self, by_meaning: BaseRetriever, nodes: list[TextNode]) -> None:
        self._by_meaning, self._nodes = by_meaning, nodes
        self._words = BM25Okapi([tokens(node.text) for node in nodes])
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        try:
            return self._by_meaning.retrieve(query_bundle)
        except EmbeddingUnavailable:
            scores = self._words.get_scores(tokens(query_bundle.query_str))
            best = sorted(range(len(self._nodes)), key=lambda place: -scores[place])
            return [NodeWithScore(node=self._nodes[place], score=float(scores[place])) for place in best[:2]]


# Nothing listens there. Another model in its place would answer, with vectors that mean nothing beside those of the index.
embedder = HFGatewayEmbedding(model_name="BAAI/bge-small-en-v1.5", targets=["tei:http://localhost:8080"])
index = VectorStoreIndex([], embed_model=embedder)

for found in MeaningOrWords(index.as_retriever(similarity_top_k=2), NODES).retrieve(
    "Which statement catches exceptions?"
):
    print(found.text)
