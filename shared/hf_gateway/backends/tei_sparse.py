"""`tei:<url>` for sparse embeddings: text-embeddings-inference with a SPLADE model."""

from hf_gateway.backends.served import is_other_model, space_from_info
from hf_gateway.backends.sparse import SparseAbility
from hf_gateway.backends.tei import TeiAbility
from hf_gateway.engines.sparse_files import SPLADE
from hf_gateway.errors import ModelNotFound, SpaceMismatch
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.wire import tei


class TeiSparse(TeiAbility, SparseAbility):
    """Calls `/embed_sparse`, within the limits of `/info`."""

    def served_space(self) -> Effects:
        """Return the space in `/info`, which every request needs anyway."""
        return space_from_info((yield from self.fetch_info()), self)

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch that fits; raises BatchTooLarge, before anything is sent, for one that does not."""
        yield from self.fetch_info()
        self.check_count(request)
        message = tei.encode_embed_sparse(self.server.base_url, self.add_prompts(request), truncate=request.truncate)
        response = yield from self.ask(message)
        return tei.decode_embed_sparse(response, len(request.texts), target=self.target.label)

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
