"""LangChain's part of `hf-gateway quickstart`: its splitter and its vector store."""

from collections.abc import Callable, Iterable, Sequence

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from hf_gateway.retrieval.splitting import split_documents
from hf_gateway.runtime.progress_bar import ShowProgress
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from langchain_hf_gateway.embeddings import HFGatewayEmbeddings

BATCH_TEXTS = 64


class Index:
    """Documents, split and kept in memory."""

    def __init__(self, gateway: EmbeddingGateway) -> None:
        """Take the chain that embeds."""
        self._store = InMemoryVectorStore(HFGatewayEmbeddings.from_gateway(gateway))

    def split(
        self, documents: Iterable[tuple[str, str]], max_tokens: int, overlap: int, tokens: Callable[[str], list[int]]
    ) -> list[tuple[str, str]]:
        """Split documents into pieces.

        Args:
            documents: the source and the text of each.
            max_tokens: tokens of a piece at most.
            overlap: tokens of a piece that the next one repeats.
            tokens: returns the numbers of a text's tokens.

        Returns:
            The source and the text of each piece.

        Raises:
            ImportError: the splitter is not installed; with the `pip install` line.
        """
        return split_documents(documents, max_tokens, overlap, tokens)

    def build(self, pieces: Sequence[tuple[str, str]], show: ShowProgress | None) -> None:
        """Embed and index pieces, and show how many are done.

        Args:
            pieces: the source and the text of each.
            show: is called with how many are done, and of how many.
        """
        for start in range(0, len(pieces), BATCH_TEXTS):
            batch = [_document(*each) for each in pieces[start : start + BATCH_TEXTS]]
            self._store.add_documents(batch)
            if show is not None:
                show(start + len(batch), len(pieces))

    def ask(self, question: str, count: int) -> list[tuple[float, str, str]]:
        """Search the pieces.

        Args:
            question: what is looked for.
            count: how many pieces are wanted.

        Returns:
            Score, source and text of each, the best first.
        """
        found = self._store.similarity_search_with_score(question, k=count)
        return [
            (float(score), str(document.metadata.get("source", "")), document.page_content) for document, score in found
        ]


def _document(source: str, text: str) -> Document:
    return Document(page_content=text, metadata={"source": source})
