"""LlamaIndex's part of `hf-gateway quickstart`: its reader, its splitter, its index."""

from collections.abc import Callable
from pathlib import Path

from llama_index.core import Document, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import BaseNode

from hf_gateway.gateway import Gateway
from llamaindex_hf_gateway.embedding import HFGatewayEmbedding

PIECE = 200
"""Tokens as LlamaIndex counts them; about the 256 that small embedding models take."""
OVERLAP = 20
AT_ONCE = 64
SUFFIXES = [".txt", ".md", ".rst", ".html", ".htm", ".pdf"]


class Index:
    """Documents, split and kept in memory."""

    def __init__(self, gateway: Gateway) -> None:
        """Take the chain that embeds."""
        self._index = VectorStoreIndex(
            nodes=[], embed_model=HFGatewayEmbedding.from_gateway(gateway, embed_batch_size=AT_ONCE)
        )
        self._nodes: list[BaseNode] = []

    def load(self, path: Path | None) -> tuple[int, int]:
        """Load and split; returns how many documents and how many pieces."""
        documents = [document for document in (_reference() if path is None else _files(path)) if document.text.strip()]
        splitter = SentenceSplitter(chunk_size=PIECE, chunk_overlap=OVERLAP)
        self._nodes = list(splitter.get_nodes_from_documents(documents))
        return len({document.metadata["source"] for document in documents}), len(self._nodes)

    def build(self, step: Callable[[int], None]) -> None:
        """Embed and index the pieces."""
        for start in range(0, len(self._nodes), AT_ONCE):
            batch = self._nodes[start : start + AT_ONCE]
            self._index.insert_nodes(batch)
            step(len(batch))

    def ask(self, question: str, count: int) -> list[tuple[float, str, str]]:
        """Return (score, source, text) of the best pieces, the best first."""
        found = self._index.as_retriever(similarity_top_k=count).retrieve(question)
        return [
            (float(node.score or 0.0), str(node.node.metadata.get("source", "")), node.node.get_content())
            for node in found
        ]


def _reference() -> list[Document]:
    from pydoc_data.topics import topics

    return [_document(text, name) for name, text in topics.items()]


def _files(path: Path) -> list[Document]:
    reader = (
        SimpleDirectoryReader(input_files=[str(path)])
        if path.is_file()
        else SimpleDirectoryReader(input_dir=str(path), recursive=True, required_exts=SUFFIXES)
    )
    return [_document(document.text, document.metadata.get("file_path", "")) for document in reader.load_data()]


def _document(text: str, source: str) -> Document:
    # The source's name is shown, not embedded: a file name says little, and a path would fill the model's few tokens.
    return Document(
        text=text,
        metadata={"source": source},
        excluded_embed_metadata_keys=["source"],
        excluded_llm_metadata_keys=["source"],
    )
