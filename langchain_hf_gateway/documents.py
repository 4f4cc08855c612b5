"""Filters documents before they are stored: those without text are logged and left out, since they cannot be embedded."""

from collections.abc import Iterable

from langchain_core.documents import Document

from hf_gateway.values.logs import logger

log = logger(__name__)

MAX_DOCUMENTS_NAMED = 10
"""How many documents without text one warning names."""


def with_text(documents: Iterable[Document]) -> list[Document]:
    """Return the documents that contain text; the others are named in the log, by id, source or index.

    LangChain's stores embed all documents in one call, which a single empty page of a scan would fail for the others too.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_core.vectorstores import InMemoryVectorStore
        from langchain_hf_gateway import HFGatewayEmbeddings, with_text

        pages = [Document("A page."), Document("", metadata={"source": "scan.pdf", "page": 7})]
        InMemoryVectorStore.from_documents(with_text(pages), HFGatewayEmbeddings(targets=["hash"]))
        ```
    """
    listed = list(documents)
    empty = [place for place, document in enumerate(listed) if not document.page_content.strip()]
    if empty:
        log.warning(
            "%d of %d documents have no text, and are left out: %s%s",
            len(empty),
            len(listed),
            ", ".join(_document_name(listed[place], place) for place in empty[:MAX_DOCUMENTS_NAMED]),
            ", …" if len(empty) > MAX_DOCUMENTS_NAMED else "",
        )
    left_out = set(empty)
    return [document for place, document in enumerate(listed) if place not in left_out]


def _document_name(document: Document, place: int) -> str:
    source, page = document.metadata.get("source"), document.metadata.get("page")
    named = document.id or (f"{source}" if source is not None else f"document {place}")
    return f"{named} (page {page})" if page is not None else named
