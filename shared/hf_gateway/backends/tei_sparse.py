"""`tei:<url>` for sparse embeddings: text-embeddings-inference with a SPLADE model."""

from hf_gateway.backends.base import ProbeReport
from hf_gateway.backends.batching import Texts
from hf_gateway.backends.served import is_other_model, space_from_info
from hf_gateway.backends.sparse import SparseAbility
from hf_gateway.backends.tei import TeiServer
from hf_gateway.engines.sparse_files import SPLADE
from hf_gateway.errors import BatchTooLarge, ModelNotFound, SpaceMismatch
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.wire import tei


class TeiSparse(SparseAbility):
    """Calls `/embed_sparse`, within the limits of `/info`."""

    server: TeiServer
    max_bytes = tei.DEFAULT_MAX_BYTES

    @property
    def context(self) -> int | None:
        """The server's maximum tokens; until it was asked, that of the model's files."""
        info = self.server.info
        return info.max_tokens if info and info.max_tokens else super().context

    @property
    def most_texts(self) -> int:  # type: ignore[override]
        """Maximum texts per request; until the server was asked, its default."""
        return self.server.info.max_texts if self.server.info else tei.DEFAULT_MAX_TEXTS

    def note_batch_limit(self, limit: BatchTooLarge, request: Texts) -> None:
        """Ask `/info` again after a refusal: the server must have been replaced.

        Args:
            limit: the refusal.
            request: the refused batch.
        """
        super().note_batch_limit(limit, request)
        if limit.status is not None:
            self.server.info = None

    def served_space(self) -> Effects:
        """Return the space in `/info`, which every request needs anyway."""
        return space_from_info((yield from self.server.fetch_info(self._check)), self)

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch that fits; raises BatchTooLarge, before anything is sent, for one that does not."""
        yield from self.server.fetch_info(self._check)
        self.check_count(request)
        message = tei.encode_embed_sparse(self.server.base_url, self.add_prompts(request), truncate=request.truncate)
        response = yield from self.ask(message)
        return tei.decode_embed_sparse(response, len(request.texts), target=self.target.label)

    def probe(self) -> Effects:
        """Ask `/info`; `/health` would answer without a key too."""
        self.server.info = None
        info = yield from self.server.fetch_info(self._check)
        limit = f", {info.max_tokens} tokens a text" if info.max_tokens else ""
        return ProbeReport(
            [info.model], f"text-embeddings-inference {info.version or ''}, {info.max_texts} texts at once{limit}"
        )

    def _check(self, info: tei.Info) -> None:
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
