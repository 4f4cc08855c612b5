"""Search documents through LangChain, on this machine alone: no key, no server, no network.

pip install "hf-gateway[langchain,local]" && hf-gateway offline-model && python examples/langchain_rag.py
"""

from langchain_core.vectorstores import InMemoryVectorStore

from langchain_hf_gateway import HFGatewayEmbeddings

DOCUMENTS = [
    "Exceptions are caught with a try statement and its except clause.",
    "A list is sliced with a colon between two positions.",
    "The with statement closes a file when its block ends.",
]

# The first target that can serve does; here nothing listens on the port, so the model runs in this process.
embeddings = HFGatewayEmbeddings(
    model="sentence-transformers/all-MiniLM-L6-v2", targets=["tei:http://localhost:8080", "local"]
)
store = InMemoryVectorStore.from_texts(DOCUMENTS, embeddings)

for document, score in store.similarity_search_with_score("How do I handle errors?", k=2):
    print(f"{score:.3f}  {document.page_content}")

result = embeddings.gateway.embed(["another text"])
print("served by", ", ".join(result.served_by), "-", result.usage.input_tokens, "tokens")
for attempt in result.attempts:
    print(" ", attempt.target, attempt.outcome, attempt.error or "")
