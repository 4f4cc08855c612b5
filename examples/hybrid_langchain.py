"""Hybrid retrieval through LangChain, on this machine alone: dense and sparse vectors, fused by their ranks, then reranked.

pip install "hf-gateway[langchain,local]" langchain-qdrant langchain-classic && hf-gateway offline-model
python examples/hybrid_langchain.py

Qdrant runs in this process. The sparse vectors are those of `bm25`, for which Qdrant weighs how rare a word is; the reranker is
`lexical`, which needs no model. With a cross-encoder, write `HFGatewayReranker(model="BAAI/bge-reranker-base", top_n=2)`.
"""

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from qdrant_client.models import Modifier

from langchain_hf_gateway import HFGatewayEmbeddings, HFGatewayReranker, HFGatewaySparseEmbeddings

DOCUMENTS = [
    "Exceptions are caught with a try statement and its except clause.",
    "Error E1042: the disk quota of the project is used up.",
    "Error E1024: the certificate of the server has expired.",
    "A list is sliced with a colon between two positions.",
    "The with statement closes a file when its block ends.",
    "Files of a project can be removed to free space on the disk.",
]

dense = HFGatewayEmbeddings(model="sentence-transformers/all-MiniLM-L6-v2", targets=["local"])
store = QdrantVectorStore.from_texts(
    DOCUMENTS,
    embedding=dense,
    sparse_embedding=HFGatewaySparseEmbeddings(targets=["bm25"]),
    retrieval_mode=RetrievalMode.HYBRID,  # fuses by reciprocal ranks
    sparse_vector_params={"modifier": Modifier.IDF},
    location=":memory:",
    collection_name="hybrid",
)
retriever = ContextualCompressionRetriever(
    base_retriever=store.as_retriever(search_kwargs={"k": 4}),
    base_compressor=HFGatewayReranker(targets=["lexical"], top_n=2),
)

for question in ("What does E1042 mean?", "How do I handle errors?"):
    print(question)
    for document in retriever.invoke(question):
        print(f"  {document.metadata['relevance_score']:.3f}  {document.page_content}")

store.client.close()
