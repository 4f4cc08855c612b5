"""HFGatewayEmbedding: LlamaIndex's `BaseEmbedding` over a hf-gateway chain."""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.embeddings import loading
from llama_index.core.schema import BaseNode, MetadataMode
from pydantic import Field, PrivateAttr, field_serializer, field_validator, model_validator

from hf_gateway.errors import InvalidRequest
from hf_gateway.framework_base import EmbeddingMixin, build_gateway
from hf_gateway.settings.config_file import read_chain
from hf_gateway.settings.embedding import EmbeddingArguments, EmbedOptions, EmbedSettings
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target
from llamaindex_hf_gateway.cache import SpaceCache, as_role

if TYPE_CHECKING:
    from dataclasses import InitVar

    from llama_index.core.callbacks import CallbackManager

    from hf_gateway.tasks.embedding.gateway import EmbeddingGateway

log = logger(__name__)

MAX_NODES_NAMED = 10
"""How many nodes without text one warning names."""


class EmbeddingModelArguments(EmbeddingArguments, total=False):
    """Keyword arguments of `HFGatewayEmbedding`: those of an embedding chain, and LlamaIndex's own."""

    model_name: str
    embed_batch_size: int
    num_workers: int | None
    embeddings_cache: Any
    callback_manager: "CallbackManager"
    rate_limiter: Any


class HFGatewayEmbedding(EmbeddingMixin, EmbedOptions, BaseEmbedding):  # type: ignore[misc]
    """Embeddings of a Hugging Face model, from the first of its targets that can serve.

    `pip install "hf-gateway[llamaindex,torch]"`

    Args:
        model_name: Hub id of the model, or a folder; `model=` is accepted too.
        targets: where to go, in this order, such as "local", "hf" or "tei:http://localhost:8080".
        embed_batch_size: texts handed over at once, and reported in one event.
        num_workers: batches under way at once in the async form.
        embeddings_cache: a key-value store; its keys get the space and the role.
        revision: commit, branch or tag of the model, for targets that load it themselves.
        api_key: a Hugging Face token, sent to Hugging Face alone; or the key of the one server of your own in `targets`.
        timeout: seconds for one request over all targets and retries.
        attempt_timeout: seconds for one call to one target.
        connect_timeout: seconds to connect.
        max_retries: how often one target is asked again after a failure that may pass.
        config: the config file whose `[keys]` hold; `from_config` fills it in.
        chain: what the chain is called in ledgers and metrics; `from_config` fills it in.
        truncate: cut a text that is longer than the model takes, instead of raising `ContextOverflow`.
        query_prompt: put before a query, instead of the model's own saved prompt.
        document_prompt: put before a document, instead of the model's own saved prompt.
        on_space_change: "refuse" targets of different vector spaces, or keep them "separate".
        check_space: compare a target's first vectors with the fingerprint of the space.
        canary_every: requests to a server after which its space is measured again; 0 for never.
        dimensions: keep only the first so many numbers (Matryoshka).
        normalize: scale vectors to length 1 even where the model does not.
        max_concurrency: batches under way at once, at most.
        coalesce: seconds for which a call of one text waits for others to share its request with, at most.
        cache: where vectors are kept: True, a path, or a key-value store of a framework.

    The arguments of `BaseEmbedding` are accepted, too.

    Examples:
        ```python
        from llama_index.core import Settings
        from llamaindex_hf_gateway import HFGatewayEmbedding

        Settings.embed_model = HFGatewayEmbedding(model_name="sentence-transformers/all-MiniLM-L6-v2")
        ```

    `to_dict` contains what changes the vectors and nothing else, since `IngestionPipeline` hashes it.
    """

    model_name: str = Field(default="unknown", frozen=True, description="Hub id of the model, or a folder.")
    # Fields of BaseEmbedding that do not change the vectors.
    embed_batch_size: int = Field(
        default=1024, gt=0, le=2048, exclude=True, description="Texts handed over at once, and reported in one event."
    )
    num_workers: int | None = Field(
        default=None, exclude=True, description="Batches under way at once in the async form."
    )
    embeddings_cache: Any | None = Field(
        default=None, exclude=True, frozen=True, description="A key-value store; its keys get the space and the role."
    )

    if TYPE_CHECKING:
        model: InitVar[str | None] = None
        """Another word for `model_name`."""

    _gateway: "EmbeddingGateway" = PrivateAttr()
    _model_field: ClassVar[str] = "model_name"
    _unnamed_model: ClassVar[str | None] = "unknown"

    @model_validator(mode="before")
    @classmethod
    def _take_model_as_model_name(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "model" in values and "model_name" not in values:
            return {("model_name" if name == "model" else name): value for name, value in values.items()}
        return values

    def model_post_init(self, context: Any, /) -> None:
        """Build the chain, so that invalid settings fail here; nothing is loaded or connected to."""
        super().model_post_init(context)
        model = None if self.model_name == self._unnamed_model else self.model_name
        self._adopt(build_gateway(self, model))

    def _adopt(self, gateway: "EmbeddingGateway") -> None:
        super()._adopt(gateway)  # values from the environment change the vectors too, so they belong into `to_dict`
        store = self.embeddings_cache
        if store is not None:
            store = store.store if isinstance(store, SpaceCache) else store
            self.__dict__["embeddings_cache"] = SpaceCache(store, self._cached_as)

    def _cached_as(self) -> str | None:
        """Return what cached vectors depend on: the space and its measurement, once they are decided, and truncation."""
        name = self._gateway.cache_namespace
        return f"{name}|cut" if name is not None and self.truncate else name

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which `load_embed_model` finds this class."""
        return "HFGatewayEmbedding"

    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[EmbeddingModelArguments]) -> Self:
        """Read `[chains.<name>]` of hf-gateway.toml.

        Args:
            name: of the chain.
            path: the file; by default the one in force.
            changes: arguments that override the file's, and LlamaIndex's own.

        Raises:
            ConfigError: a chain that the file does not have, or settings that make no sense, with file and line.
        """
        return cls(**{**read_chain(name, EmbedSettings, path), **changes})

    def to_payload(self) -> dict[str, Any]:
        """Describe this embedder for events, without keys."""
        return {
            **super().to_payload(),
            "targets": [target.label for target in self._gateway.targets],
            "dimensions": self.dimensions,
        }

    @field_serializer("on_space_change")
    def _space_that_was_chosen(self, value: str) -> str:
        """Distinguish chains that may answer in several spaces: `IngestionPipeline` caches vectors by what this returns."""
        if value == "refuse":
            return value
        settled = self._gateway.final_space
        return f"{value}:{settled.id if settled else uuid.uuid4().hex}"

    @field_validator("on_space_change", mode="before")
    @classmethod
    def _space_may_be_chosen_again(cls, value: Any) -> Any:
        return value.partition(":")[0] if isinstance(value, str) else value

    @field_serializer("targets")
    def _targets_that_change_vectors(self, targets: tuple[Target, ...] | None) -> list[dict[str, Any]]:
        from hf_gateway.backends import server_class

        shown = []
        for target in targets or ():
            fields = target.to_dict()
            tuning = server_class(target.kind).tuning_options
            options = {name: value for name, value in fields.pop("options", {}).items() if name not in tuning}
            shown.append({**fields, "options": options} if options else fields)
        return shown

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the fields and the space binding; connections, models and keys are left out."""
        return {**super().__getstate__(), "__pydantic_private__": None, "binding": self._gateway.space_binding}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the chain again. The base class would swallow an error of that, and leave an unusable object."""
        self.__init__(**state["__dict__"])  # type: ignore[misc]
        self._gateway.bind_space(state.get("binding"))

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Embed nodes, as a step of an `IngestionPipeline`; those without text are named in the log and get no vector.

        Raises InvalidRequest, naming the node, for a text that cannot be sent.
        """
        super().__call__(_with_text(nodes), **kwargs)
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Like calling it, without blocking the event loop."""
        await super().acall(_with_text(nodes), **kwargs)
        return nodes

    def get_query_embedding(self, query: str) -> list[float]:
        """Embed a text as a query; returns dim floats."""
        with as_role("query"):
            found: list[float] = super().get_query_embedding(query)
        return found

    async def aget_query_embedding(self, query: str) -> list[float]:
        """Embed a text as a query, without blocking the event loop."""
        with as_role("query"):
            found: list[float] = await super().aget_query_embedding(query)
        return found

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._gateway.embed([query], role="query").vectors.tolist()[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._gateway.aembed([query], role="query")).vectors.tolist()[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._gateway.embed(texts, lists=True).vectors.tolist()

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return (await self._gateway.aembed(texts, lists=True)).vectors.tolist()


def _with_text(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    """Return the nodes that contain text. The others stay without a vector, so that no store accepts them."""
    from hf_gateway.values.text_batches import (
        text_fault,
    )  # imports a JSON parser, which importing this package does not need

    found, empty = [], []
    for node in nodes:
        text = node.get_content(metadata_mode=MetadataMode.EMBED)
        if not text.strip():
            empty.append(node)
        elif fault := text_fault(text):
            raise InvalidRequest(f"node {_node_name(node)} {fault}; nothing was embedded")
        else:
            found.append(node)
    if empty:
        log.warning(
            "%d of %d nodes have no text, and stay without a vector: %s%s",
            len(empty),
            len(nodes),
            ", ".join(map(_node_name, empty[:MAX_NODES_NAMED])),
            ", …" if len(empty) > MAX_NODES_NAMED else "",
        )
    return found


def _node_name(node: BaseNode) -> str:
    """Return a node's id and its document's."""
    return f"{node.node_id} (of document {node.ref_doc_id})" if node.ref_doc_id else str(node.node_id)


# LlamaIndex has no hook for it; `load_embed_model` looks into this table.
loading.RECOGNIZED_EMBEDDINGS[HFGatewayEmbedding.class_name()] = HFGatewayEmbedding
