"""Search documents through LlamaIndex, on this machine alone: no key, no server, no network.

pip install "hf-gateway[llamaindex,local]" && hf-gateway offline-model && python examples/llamaindex_rag.py
"""

from llama_index.core import Document, Settings, VectorStoreIndex

from llamaindex_hf_gateway import HFGatewayEmbedding

DOCUMENTS = [
    "Exceptions are caught with a try statement and its except clause.",
    "A list is sliced with a colon between two positions.",
    "The with statement closes a file when its block ends.",
]

Settings.embed_model = HFGatewayEmbedding(model_name="sentence-transformers/all-MiniLM-L6-v2", targets=["local"])
index = VectorStoreIndex.from_documents([Document(text=text) for text in DOCUMENTS])

for found in index.as_retriever(similarity_top_k=2).retrieve("How do I handle errors?"):
    print(f"{found.score:.3f}  {found.text}")
