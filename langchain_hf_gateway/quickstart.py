"""LangChain's part of `hf-gateway quickstart`: its loaders, its splitter, its vector store."""

from collections.abc import Callable, Iterator
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from hf_gateway.gateway import Gateway
from langchain_hf_gateway.embeddings import HFGatewayEmbeddings

PIECE = 800
"""Characters; about the 256 tokens that small embedding models take."""
OVERLAP = 80
AT_ONCE = 64
SUFFIXES = (".txt", ".md", ".rst", ".html", ".htm", ".pdf")


class Index:
    """Documents, split and kept in memory."""

    def __init__(self, gateway: Gateway) -> None:
        """Take the chain that embeds."""
        self._store = InMemoryVectorStore(HFGatewayEmbeddings.from_gateway(gateway))
        self._pieces: list[Document] = []

    def load(self, path: Path | None) -> tuple[int, int]:
        """Load and split; returns how many documents and how many pieces. Raises ImportError with the `pip install` line."""
        try:
            from langchain_text_splitters import RecursiveCharacterTextSplitter
        except ImportError:
            raise ImportError(
                "splitting documents needs langchain-text-splitters: pip install 'hf-gateway[loaders]'"
            ) from None
        documents = [
            document for document in (_reference() if path is None else _files(path)) if document.page_content.strip()
        ]
        splitter = RecursiveCharacterTextSplitter(chunk_size=PIECE, chunk_overlap=OVERLAP)
        self._pieces = splitter.split_documents(documents)
        return len({document.metadata["source"] for document in documents}), len(self._pieces)

    def build(self, step: Callable[[int], None]) -> None:
        """Embed and index the pieces."""
        for start in range(0, len(self._pieces), AT_ONCE):
            batch = self._pieces[start : start + AT_ONCE]
            self._store.add_documents(batch)
            step(len(batch))

    def ask(self, question: str, count: int) -> list[tuple[float, str, str]]:
        """Return (score, source, text) of the best pieces, the best first."""
        found = self._store.similarity_search_with_score(question, k=count)
        return [
            (float(score), str(document.metadata.get("source", "")), document.page_content) for document, score in found
        ]


def _reference() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name, text in topics.items():
        yield Document(page_content=text, metadata={"source": name})


def _files(path: Path) -> Iterator[Document]:
    try:
        from langchain_community.document_loaders import BSHTMLLoader, PyPDFLoader, TextLoader
    except ImportError:
        raise ImportError("loading files needs LangChain's loaders: pip install 'hf-gateway[loaders]'") from None
    for file in (
        [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
    ):
        suffix = file.suffix.lower()
        if suffix == ".pdf":
            yield from PyPDFLoader(str(file)).lazy_load()
        elif suffix in (".html", ".htm"):
            yield from BSHTMLLoader(str(file), bs_kwargs={"features": "html.parser"}, open_encoding="utf-8").lazy_load()
        else:
            yield from TextLoader(str(file), encoding="utf-8", autodetect_encoding=False).lazy_load()
