"""`tei:<url>`: text-embeddings-inference."""

from collections.abc import Callable

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.batching import BatchingAbility, Texts
from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.backends.gateway_space import GatewaySpace
from hf_gateway.backends.openai_embeddings import Embeddings
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.served import is_other_model, space_from_info
from hf_gateway.errors import BatchTooLarge, ModelNotFound, SpaceMismatch
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.values import kinds
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.http import HttpRequest
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.wire import tei


class TeiAbility(BatchingAbility):
    """Keeps every request within the limits in `/info`, which is read once: TEI does not divide batches itself.

    A task's class implements `check_info`, and overrides `limits` if it counts something else than texts.
    """

    server: "TeiServer"
    max_bytes = tei.DEFAULT_MAX_BYTES

    @property
    def context(self) -> int | None:
        """The server's maximum tokens; until it was asked, that of the model's files, if the task reads them."""
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

    def fetch_info(self) -> Effects:
        """Ask `/info`, unless that was done; returns an `Info`. Raises what `check_info` raises."""
        return self.server.fetch_info(self.check_info)

    def fetch_reported(self, space_id: str) -> Effects:  # noqa: ARG002 - /info is about the only one
        """Ask `/info` again for the space; returns a `ReportedSpace`.

        Args:
            space_id: the id that an answer had.
        """
        self.server.info = None
        info: tei.Info = yield from self.fetch_info()
        return info.reported

    def probe(self) -> Effects:
        """Ask `/info`; `/health` would answer without a key too."""
        self.server.info = None
        info = yield from self.fetch_info()
        return ProbeReport([info.model], f"text-embeddings-inference {info.version or ''}, {self.limits(info)}")

    def limits(self, info: tei.Info) -> str:
        """Return what the server takes at once, for `doctor`."""
        limit = f", {info.max_tokens} tokens a text" if info.max_tokens else ""
        return f"{info.max_texts} texts at once{limit}"

    def check_info(self, info: tei.Info) -> None:
        """Raise GatewayError for a server that cannot be used for the task."""
        raise NotImplementedError


class TeiEmbedding(TeiAbility, EmbeddingAbility):
    """Calls `/embed`, or `/v1/embeddings`."""

    def __init__(self, server: Server, options: EmbedOptions) -> None:
        super().__init__(server, options)
        self._embeddings = Embeddings(self)
        self._gateway = GatewaySpace(self, self.fetch_reported)

    @property
    def reported_space(self) -> VectorSpace | None:
        """The space that a server of this package has reported."""
        return self._gateway.comparable()

    def served_space(self) -> Effects:
        """Return the space in `/info`, which every request needs anyway, so that it costs nothing more."""
        info = yield from self.fetch_info()
        return self.reported_space or space_from_info(info, self)

    @property
    def one_role(self) -> bool:
        """Whether queries and documents get the same vectors here; a prompt that the server adds is a difference, too."""
        return super().one_role and self.mixes_roles

    @property
    def mixes_roles(self) -> bool:
        """Whether one request may contain texts of both roles: a request names one prompt that the server adds."""
        return self._gateway.reported is None and not self.target.options.get("prompt_names")

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch that fits; raises BatchTooLarge, before anything is sent, for one that does not."""
        yield from self.fetch_info()
        self.check_count(request)
        if self.target.options.get("openai"):
            url = f"{self.server.base_url}/v1/embeddings"
            if self._gateway.reported is not None:
                return (yield from self._embeddings.in_space(url, request, self._gateway))
            return (yield from self._embeddings.of(url, self._texts_and_prompt(request)[0]))
        response = yield from self._gateway.ask(lambda: self._message(request))
        return tei.decode_embed(response, len(request.texts), target=self.target.label)

    def check_info(self, info: tei.Info) -> None:
        """Raise ModelNotFound for a server without an embedding model, SpaceMismatch for one of another model."""
        if not info.embeds:
            raise ModelNotFound(f"serves a {info.kind}, {info.model}, not an embedding model", target=self.target.label)
        if is_other_model(info, self.target):
            wanted = self.target.model
            raise SpaceMismatch(
                f"serves {info.model}, and the chain wants {wanted}: the vectors could not be compared. Point the target at "
                f"the right server, pass model={info.model!r}, or, if it is the same model under another name, say so: "
                f"Target('tei', url=..., space=VectorSpace({wanted!r}))",
                target=self.target.label,
            )
        self._gateway.note(info.reported)

    def _texts_and_prompt(self, request: EmbedRequest) -> tuple[list[str], str | None]:
        """Return the texts to send, and the name of the prompt that the server adds."""
        if self._gateway.reported is not None:
            return list(request.texts), request.role
        prompt_name = self.target.options.get("prompt_names", {}).get(request.role)
        return (self.add_prompts(request) if prompt_name is None else list(request.texts)), prompt_name

    def _message(self, request: EmbedRequest) -> HttpRequest:
        texts, prompt_name = self._texts_and_prompt(request)
        normalize = self.model_space().normalized
        # A server of this package answers in its own space, which it reports.
        own = None if self._gateway.reported is not None else normalize is not False
        return tei.encode_embed(
            self.server.base_url,
            texts,
            truncate=request.truncate,
            normalize=own,
            prompt_name=prompt_name,
        )


class TeiServer(Server):
    """A server of text-embeddings-inference.

    Options: `openai` (True: speak `/v1/embeddings` instead of `/embed`), `prompt_names` (`{"query": "query"}`: let the
    server put its own saved prompt before a role's texts).
    """

    kind = kinds.TEI
    abilities = {
        "embedding": TeiEmbedding,
        "rerank": "hf_gateway.backends.tei_rerank:TeiRerank",
        "classification": "hf_gateway.backends.tei_classification:TeiClassify",
        "sparse": "hf_gateway.backends.tei_sparse:TeiSparse",
    }
    option_types = OPTION_TYPES
    option_names = frozenset({"openai", "prompt_names"})
    info: tei.Info | None = None
    """The content of `/info`; None until it was asked."""

    def fetch_info(self, check: Callable[[tei.Info], None]) -> Effects:
        """Ask `/info`, unless that was done; returns an `Info`. check: raises for a server that cannot be used."""
        if self.info is None:
            info = tei.decode_info((yield from self.ask(tei.encode_info(self.base_url))), target=self.target.label)
            check(info)
            self.info = info
        return self.info
