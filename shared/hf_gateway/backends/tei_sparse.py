"""`tei:<url>` for sparse embeddings: text-embeddings-inference with a SPLADE model."""

from hf_gateway.backends.base import Server
from hf_gateway.backends.gateway_space import GatewaySpace
from hf_gateway.backends.served import is_other_model, space_from_info
from hf_gateway.backends.sparse import SparseAbility
from hf_gateway.backends.tei import TeiAbility
from hf_gateway.engines.sparse_files import SPLADE
from hf_gateway.errors import ModelNotFound, SpaceMismatch
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.sparse import SparseOptions
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.http import HttpRequest
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.wire import tei


class TeiSparse(TeiAbility, SparseAbility):
    """Calls `/embed_sparse`, within the limits of `/info`."""

    def __init__(self, server: Server, options: SparseOptions) -> None:
        super().__init__(server, options)
        self._gateway = GatewaySpace(self, self.fetch_reported)

    @property
    def reported_space(self) -> VectorSpace | None:
        """The space that a server of this package has reported."""
        return self._gateway.comparable()

    def served_space(self) -> Effects:
        """Return the space in `/info`, which every request needs anyway."""
        info = yield from self.fetch_info()
        return self.reported_space or space_from_info(info, self)

    @property
    def one_role(self) -> bool:
        """Whether queries and documents get the same vectors here; not known of a server that has the prompts itself."""
        return super().one_role and self.mixes_roles

    @property
    def mixes_roles(self) -> bool:
        """Whether one request may contain texts of both roles: a request to such a server names one."""
        return self._gateway.reported is None

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch that fits; raises BatchTooLarge, before anything is sent, for one that does not."""
        yield from self.fetch_info()
        self.check_count(request)
        response = yield from self._gateway.ask(lambda: self._message(request))
        return tei.decode_embed_sparse(response, len(request.texts), target=self.target.label)

    def _message(self, request: EmbedRequest) -> HttpRequest:
        known = self._gateway.reported is not None
        return tei.encode_embed_sparse(
            self.server.base_url,
            request.texts if known else self.add_prompts(request),
            truncate=request.truncate,
            prompt_name=request.role if known else None,
        )

    def check_info(self, info: tei.Info) -> None:
        """Raise ModelNotFound for a server without a SPLADE model, SpaceMismatch for one of another model."""
        if not info.embeds or info.pooling != SPLADE:
            what = f"an embedding model with {info.pooling} pooling" if info.embeds else f"a {info.kind}"
            raise ModelNotFound(
                f"serves {what}, {info.model}, and sparse vectors need a SPLADE model: start the server with --pooling splade",
                target=self.target.label,
            )
        if is_other_model(info, self.target):
            raise SpaceMismatch(
                f"serves {info.model}, and the chain wants {self.target.model}: the vectors could not be compared. Point the "
                f"target at the right server, or pass model={info.model!r}",
                target=self.target.label,
            )
        self._gateway.note(info.reported)
