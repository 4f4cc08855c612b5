"""LlamaIndex's part of `hf-gateway quickstart`: its splitter and its index."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import TextNode

from hf_gateway.runtime.progress_bar import ShowProgress
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from llamaindex_hf_gateway.embedding import HFGatewayEmbedding

BATCH_TEXTS = 64
_ENDS = r".!?\n\u3002\uff01\uff1f"  # the last three are those of CJK
# Of LlamaIndex's own way to find sentences a data file of nltk is needed, which nltk refuses where an installer (uv) linked it.
_SENTENCE = re.compile(rf"[^{_ENDS}]*[{_ENDS}]+\s*|[^{_ENDS}]+")


class Index:
    """Documents, split and kept in memory."""

    def __init__(self, gateway: EmbeddingGateway) -> None:
        """Take the chain that embeds."""
        self._index = VectorStoreIndex(
            nodes=[], embed_model=HFGatewayEmbedding.from_gateway(gateway, embed_batch_size=BATCH_TEXTS)
        )

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
        """
        splitter = SentenceSplitter(
            chunk_size=max_tokens, chunk_overlap=overlap, tokenizer=tokens, chunking_tokenizer_fn=_SENTENCE.findall
        )
        nodes = splitter.get_nodes_from_documents([Document(**_fields(*each)) for each in documents])
        return [(node.metadata["source"], node.get_content()) for node in nodes]

    def build(self, pieces: Sequence[tuple[str, str]], show: ShowProgress | None) -> None:
        """Embed and index pieces, and show how many are done.

        Args:
            pieces: the source and the text of each.
            show: is called with how many are done, and of how many.
        """
        for start in range(0, len(pieces), BATCH_TEXTS):
            batch = [TextNode(**_fields(*each)) for each in pieces[start : start + BATCH_TEXTS]]
            self._index.insert_nodes(batch)
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
        found = self._index.as_retriever(similarity_top_k=count).retrieve(question)
        return [
            (float(node.score or 0.0), str(node.node.metadata.get("source", "")), node.node.get_content())
            for node in found
        ]


def _fields(source: str, text: str) -> dict[str, Any]:
    # The source's name is shown, not embedded: a file name says little, and a path would fill the model's few tokens.
    return {
        "text": text,
        "metadata": {"source": source},
        "excluded_embed_metadata_keys": ["source"],
        "excluded_llm_metadata_keys": ["source"],
    }
