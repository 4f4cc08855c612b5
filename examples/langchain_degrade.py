"""Search by meaning, and by words when no embeddings can be had: an answer from a worse search, never from wrong vectors.

pip install "hf-gateway[langchain]" rank-bm25 && python examples/langchain_degrade.py
"""

import re

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from rank_bm25 import BM25Okapi

from hf_gateway import EmbeddingUnavailable
from langchain_hf_gateway import HFGatewayEmbeddings

DOCUMENTS = [
    "Exceptions are caught with a try statement and its except clause.",
    "A list is sliced with a colon between two positions.",
    "The with statement closes a file when its block ends.",
]


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


words = BM25Okapi([tokens(text) for text in DOCUMENTS])


def by_words(question: str) -> list[Document]:
    scores = words.get_scores(tokens(question))
    best = sorted(range(len(DOCUMENTS)), key=lambda place: -scores[place])
    return [Document(DOCUMENTS[place]) for place in best[:2] if scores[place] > 0]


# Nothing listens there. Another model in its place would answer, with vectors that mean nothing beside those of the index.
embeddings = HFGatewayEmbeddings(model="BAAI/bge-small-en-v1.5", targets=["tei:http://localhost:8080"])
by_meaning = InMemoryVectorStore(embeddings).as_retriever(search_kwargs={"k": 2})

retriever = by_meaning.with_fallbacks([RunnableLambda(by_words)], exceptions_to_handle=(EmbeddingUnavailable,))
for document in retriever.invoke("Which statement catches exceptions?"):
    print(document.page_content)
