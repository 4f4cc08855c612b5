"""LangChain's part of `hf-gateway quickstart`: its loaders, its splitter, its vector store."""

from collections.abc import Callable, Iterator
from pathlib import Path

from langchain_core.document_loaders import BaseLoader
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
            document
            for document in (_reference() if path is None else FileLoader(path).lazy_load())
            if document.page_content.strip()
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


class FileLoader(BaseLoader):
    """Loads text, Markdown, HTML and PDF files as documents, a PDF page by page.

    LangChain's own loaders for these live in langchain-community, which is no longer kept up; this is the few lines over
    pypdf and Beautiful Soup that its tutorials now use instead.
    """

    def __init__(self, path: Path) -> None:
        """Take a file, or a folder whose files are loaded in order of their names."""
        self._path = path

    def lazy_load(self) -> Iterator[Document]:
        """Give one document a file, or one a page. Raises ImportError with the `pip install` line."""
        path = self._path
        for file in [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file()):
            suffix = file.suffix.lower()
            if suffix in SUFFIXES or path.is_file():
                for number, text in enumerate(_texts(file, suffix)):
                    yield Document(page_content=text, metadata={"source": str(file), "page": number})


def _texts(file: Path, suffix: str) -> Iterator[str]:
    try:
        if suffix == ".pdf":
            from pypdf import PdfReader

            yield from (page.extract_text() for page in PdfReader(file).pages)
        elif suffix in (".html", ".htm"):
            from bs4 import BeautifulSoup

            yield BeautifulSoup(file.read_bytes(), "html.parser").get_text(" ")
        else:
            yield file.read_text(encoding="utf-8", errors="replace")
    except ModuleNotFoundError as error:
        raise ImportError(f"reading {file.name} needs {error.name}: pip install 'hf-gateway[loaders]'") from None
