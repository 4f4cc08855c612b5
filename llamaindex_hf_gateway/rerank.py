"""HFGatewayRerank: LlamaIndex's `BaseNodePostprocessor` over a hf-gateway chain."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import Field, PrivateAttr

from hf_gateway.errors import InvalidRequest
from hf_gateway.framework_base import RerankMixin, build_gateway
from hf_gateway.settings.config_file import read_chain
from hf_gateway.settings.rerank import RerankArguments, RerankSettings

if TYPE_CHECKING:
    from llama_index.core.callbacks import CallbackManager

    from hf_gateway.tasks.rerank.gateway import RerankGateway

dispatcher = get_dispatcher(__name__)


class RerankerArguments(RerankArguments, total=False):
    """Keyword arguments of `HFGatewayRerank`: those of a rerank chain, and LlamaIndex's own."""

    keep_retrieval_score: bool
    callback_manager: "CallbackManager"


class HFGatewayRerank(RerankMixin, RerankSettings, BaseNodePostprocessor):  # type: ignore[misc]
    """A Hugging Face reranker, from the first of its targets that can serve.

    `pip install "hf-gateway[llamaindex,torch]"`

    Args:
        model: Hub id of the model, or a folder.
        targets: where to go, in this order, such as "local", "tei:http://localhost:8080" or, as the last one, "lexical".
        revision: commit, branch or tag of the model, for targets that load it themselves.
        api_key: a Hugging Face token, sent to Hugging Face alone; or the key of the one server of your own in `targets`.
        timeout: seconds for one request over all targets and retries.
        attempt_timeout: seconds for one call to one target.
        connect_timeout: seconds to connect.
        max_retries: how often one target is asked again after a failure that may pass.
        config: the config file whose `[keys]` hold; `from_config` fills it in.
        chain: what the chain is called in ledgers and metrics; `from_config` fills it in.
        top_n: how many documents are returned, the best ones.
        scale: of the scores of models: "probability" or "logit".
        truncate: truncate a query with a document that is longer than the model accepts, instead of raising `ContextOverflow`.
        keep_retrieval_score: keep the retriever's score in the metadata, as `retrieval_score`.

    The arguments of `BaseNodePostprocessor` are accepted, too.

    Examples:
        ```python
        from llama_index.core.schema import NodeWithScore, TextNode
        from llamaindex_hf_gateway import HFGatewayRerank

        rerank = HFGatewayRerank(targets=["lexical"], top_n=1)  # or model="BAAI/bge-reranker-base"
        found = [NodeWithScore(node=TextNode(text=text)) for text in ("list comprehensions", "how to catch an exception")]
        print(rerank.postprocess_nodes(found, query_str="catch an exception"))
        ```

    A node's text is what `MetadataMode.EMBED` shows of it. Nodes without any come last, without a score. The caller's nodes are
    not changed. Errors are hf-gateway's own.
    """

    keep_retrieval_score: bool = Field(
        default=False, description="Whether to keep the retriever's score in the metadata, as `retrieval_score`."
    )

    _gateway: "RerankGateway" = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        super().model_post_init(context)
        self._adopt(build_gateway(self, self.model))

    @classmethod
    def class_name(cls) -> str:
        """Return the name of this class in dicts and events."""
        return "HFGatewayRerank"

    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[RerankerArguments]) -> Self:
        """Read `[chains.<name>]` of hf-gateway.toml.

        Args:
            name: of the chain.
            path: the file; by default the one in force.
            changes: arguments that override the file's, and LlamaIndex's own.

        Raises:
            ConfigError: a chain that the file does not have, or settings that make no sense, with file and line.
        """
        # The file is for every framework, so LlamaIndex's own arguments have no place in it.
        return cls(**{**read_chain(name, RerankSettings, path), **changes})

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the fields; connections, models and keys are left out."""
        return {**super().__getstate__(), "__pydantic_private__": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the chain again. The base class would swallow an error of that, and leave an unusable object."""
        self.__init__(**state["__dict__"])  # type: ignore[misc]

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        with self._reported(nodes, query) as ranked:
            ranks, _ = self._rank(query, list(map(_text_of, nodes)))
            ranked += self._in_order(nodes, ranks)
        return ranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query_of(query_bundle)
        with self._reported(nodes, query) as ranked:
            ranks, _ = await self._arank(query, list(map(_text_of, nodes)))
            ranked += self._in_order(nodes, ranks)
        return ranked

    @contextlib.contextmanager
    def _reported(self, nodes: list[NodeWithScore], query: str) -> Iterator[list[NodeWithScore]]:
        """Report the start and the end in LlamaIndex's events; yields the list to put the ranked nodes into."""
        name, top_n = self.model or self._gateway.targets[0].label, self.top_n or len(nodes)
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=name))
        payload = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        ranked: list[NodeWithScore] = []
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield ranked
            event.on_end(payload={EventPayload.NODES: ranked})
        dispatcher.event(ReRankEndEvent(nodes=ranked))

    def _in_order(
        self, nodes: Sequence[NodeWithScore], ranks: Sequence[tuple[int, float | None]]
    ) -> list[NodeWithScore]:
        return [NodeWithScore(node=self._node_of(nodes[place]), score=score) for place, score in ranks]

    def _node_of(self, found: NodeWithScore) -> Any:
        if not self.keep_retrieval_score:
            return found.node
        return found.node.model_copy(update={"metadata": {**found.node.metadata, "retrieval_score": found.score}})


def _query_of(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        raise InvalidRequest("the query is missing; pass query_str or query_bundle; nothing was ranked")
    return str(query_bundle.query_str)


def _text_of(found: NodeWithScore) -> str:
    return str(found.node.get_content(metadata_mode=MetadataMode.EMBED))
