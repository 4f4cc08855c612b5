"""HFGatewaySparseEmbedding: LlamaIndex's `BaseSparseEmbedding` over a hf-gateway chain."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
from pydantic import Field, PrivateAttr, model_validator

from hf_gateway.framework_base import SparseMixin, build_gateway
from hf_gateway.settings.config_file import read_chain
from hf_gateway.settings.sparse import SparseArguments, SparseOptions, SparseSettings

if TYPE_CHECKING:
    from dataclasses import InitVar

    from hf_gateway.tasks.sparse.gateway import SparseGateway
    from hf_gateway.values.sparse import SparseVectors


class SparseModelArguments(SparseArguments, total=False):
    """Keyword arguments of `HFGatewaySparseEmbedding`: those of a sparse embedding chain, and LlamaIndex's own."""

    model_name: str
    embed_batch_size: int
    num_workers: int | None


class HFGatewaySparseEmbedding(SparseMixin, SparseOptions, BaseSparseEmbedding):  # type: ignore[misc]
    """Sparse embeddings of a Hugging Face model, or by `bm25` of none, from the first of its targets that can serve.

    `pip install "hf-gateway[llamaindex]"`

    Args:
        model_name: Hub id of the model, or a folder; `model=` is accepted too, and `bm25` needs none.
        targets: where to go, in this order, such as "local", "tei:http://localhost:8080" or "bm25".
        embed_batch_size: texts handed over at once, and reported in one event.
        num_workers: batches under way at once in the async form.
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

    Examples:
        ```python
        from llamaindex_hf_gateway import HFGatewaySparseEmbedding

        sparse = HFGatewaySparseEmbedding(targets=["bm25"])
        print(sparse.get_query_embedding("How do I catch an exception?"))
        ```

    With `bm25` the store has to apply the inverse document frequency.
    """

    model_name: str = Field(default="unknown", frozen=True, description="Hub id of the model, or a folder.")
    embed_batch_size: int = Field(
        default=1024, gt=0, le=2048, exclude=True, description="Texts handed over at once, and reported in one event."
    )
    num_workers: int | None = Field(
        default=None, exclude=True, description="Batches under way at once in the async form."
    )

    if TYPE_CHECKING:
        model: InitVar[str | None] = None
        """Another word for `model_name`."""

    _gateway: "SparseGateway" = PrivateAttr()
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
        self._adopt(build_gateway(self, None if self.model_name == self._unnamed_model else self.model_name))

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which serialised components name this class."""
        return "HFGatewaySparseEmbedding"

    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[SparseModelArguments]) -> Self:
        """Read `[chains.<name>]` of hf-gateway.toml.

        Args:
            name: of the chain.
            path: the file; by default the one in force.
            changes: arguments that override the file's, and LlamaIndex's own.

        Raises:
            ConfigError: a chain that the file does not have, or settings that make no sense, with file and line.
        """
        return cls(**{**read_chain(name, SparseSettings, path), **changes})

    def to_payload(self) -> dict[str, Any]:
        """Describe this embedder for events, without keys."""
        return {**super().to_payload(), "targets": [target.label for target in self._gateway.targets]}

    def _get_query_embedding(self, query: str) -> dict[int, float]:
        return _as_dicts(self._gateway.embed([query], role="query").vectors)[0]

    async def _aget_query_embedding(self, query: str) -> dict[int, float]:
        return _as_dicts((await self._gateway.aembed([query], role="query")).vectors)[0]

    def _get_text_embedding(self, text: str) -> dict[int, float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> dict[int, float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[dict[int, float]]:
        return _as_dicts(self._gateway.embed(texts).vectors)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[dict[int, float]]:
        return _as_dicts((await self._gateway.aembed(texts)).vectors)


def _as_dicts(vectors: "SparseVectors") -> list[dict[int, float]]:
    return [vector.to_dict() for vector in vectors]
