"""Hybrid retrieval through LlamaIndex, on this machine alone: dense and sparse vectors, fused by their ranks, then reranked.

pip install "hf-gateway[llamaindex,local]" && hf-gateway offline-model && python examples/hybrid_llamaindex.py

The sparse vectors are those of `bm25`; the retriever below weighs how rare a word is, as a store of sparse vectors would. The
reranker is `lexical`, which needs no model. With a cross-encoder, write
`HFGatewayRerank(model="BAAI/bge-reranker-base", top_n=2)`.
"""

import math
from collections import Counter

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import FUSION_MODES
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayRerank, HFGatewaySparseEmbedding

DOCUMENTS = [
    "Exceptions are caught with a try statement and its except clause.",
    "Error E1042: the disk quota of the project is used up.",
    "Error E1024: the certificate of the server has expired.",
    "A list is sliced with a colon between two positions.",
    "The with statement closes a file when its block ends.",
    "Files of a project can be removed to free space on the disk.",
]


class SparseRetriever(BaseRetriever):
    """Keeps sparse vectors in memory, and weighs how rare each of their entries is."""

    def __init__(self, nodes: list[TextNode], sparse: HFGatewaySparseEmbedding, top_k: int) -> None:
        """Embed the nodes."""
        super().__init__()
        self._nodes, self._sparse, self._top_k = nodes, sparse, top_k
        self._vectors = sparse.get_text_embedding_batch([node.get_content() for node in nodes])
        self._seen_in = Counter(index for vector in self._vectors for index in vector)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = self._sparse.get_query_embedding(query_bundle.query_str)
        count = len(self._nodes)
        rarity = {
            index: math.log(1 + (count - self._seen_in[index] + 0.5) / (self._seen_in[index] + 0.5)) for index in asked
        }
        scores = [
            sum(weight * vector.get(index, 0.0) * rarity[index] for index, weight in asked.items())
            for vector in self._vectors
        ]
        found = [
            NodeWithScore(node=node, score=score) for node, score in zip(self._nodes, scores, strict=True) if score
        ]
        return sorted(found, key=lambda each: -(each.score or 0.0))[: self._top_k]


nodes = [TextNode(text=text) for text in DOCUMENTS]
dense = HFGatewayEmbedding(model_name="sentence-transformers/all-MiniLM-L6-v2", targets=["local"])
index = VectorStoreIndex(nodes, embed_model=dense)
retriever = QueryFusionRetriever(
    [
        index.as_retriever(similarity_top_k=4),
        SparseRetriever(nodes, HFGatewaySparseEmbedding(targets=["bm25"]), top_k=4),
    ],
    llm=MockLLM(),  # would write more questions; with num_queries=1 it is not asked
    num_queries=1,
    mode=FUSION_MODES.RECIPROCAL_RANK,
    similarity_top_k=4,
    use_async=False,
)
rerank = HFGatewayRerank(targets=["lexical"], top_n=2)

for question in ("What does E1042 mean?", "How do I handle errors?"):
    print(question)
    for found in rerank.postprocess_nodes(retriever.retrieve(question), query_str=question):
        print(f"  {found.score:.3f}  {found.node.get_content()}")
