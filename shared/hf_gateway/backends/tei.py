"""`tei:<url>`: text-embeddings-inference."""

from hf_gateway.backends.base import Backend, ProbeReport
from hf_gateway.backends.openai_embeddings import Embeddings
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.served import is_other_model, space_from_info
from hf_gateway.errors import BatchTooLarge, ConfigError, ModelNotFound, SpaceMismatch
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.http import HttpRequest
from hf_gateway.wire import tei


class TeiBackend(Backend):
    """Asks `/info` once for the server's limits, and keeps every request within them: TEI does not split by itself.

    Options: `openai` (True: speak `/v1/embeddings` instead of `/embed`), `prompt_names` (`{"query": "query"}`: let the
    server put its own saved prompt before a role's texts).
    """

    kind = "tei"
    option_types = OPTION_TYPES
    option_names = frozenset({"openai", "prompt_names"})
    max_bytes = tei.DEFAULT_MAX_BYTES

    def __init__(self, *args: object, **named: object) -> None:
        """Check that there is a URL."""
        super().__init__(*args, **named)  # type: ignore[arg-type]
        if self.target.url is None:
            raise ConfigError("target 'tei' needs its URL, such as 'tei:http://localhost:8080'")
        self._base = self.target.url
        self._info: tei.Info | None = None
        self._embeddings = Embeddings(self)

    def served_space(self) -> Effects:
        """Return what `/info` says, which every request needs anyway: it costs nothing more, and fails as the request would."""
        return space_from_info((yield from self._fetch_info()), self)

    @property
    def one_role(self) -> bool:
        """Whether queries and documents get the same vectors here; a prompt that the server puts makes a difference, too."""
        return super().one_role and not self.target.options.get("prompt_names")

    @property
    def mixes_roles(self) -> bool:
        """Whether one request may have texts of both roles: a request names one prompt that the server puts."""
        return not self.target.options.get("prompt_names")

    @property
    def most_texts(self) -> int:  # type: ignore[override]
        """Texts that the server takes at once; until it was asked, what it takes unless set up otherwise."""
        return self._info.max_texts if self._info else tei.DEFAULT_MAX_TEXTS

    def note_batch_limit(self, limit: BatchTooLarge, request: EmbedRequest) -> None:
        """Ask `/info` again after a refusal: it is another server by now."""
        super().note_batch_limit(limit, request)
        if limit.status is not None:
            self._info = None

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch that fits; raises BatchTooLarge, before anything is sent, for one that does not."""
        yield from self._fetch_info()
        self.check_count(request)
        if self.target.options.get("openai"):
            return (yield from self._embeddings.of(f"{self._base}/v1/embeddings", self._texts_and_prompt(request)[0]))
        response = yield from self.ask(self._message(request))
        return tei.decode_embed(response, len(request.texts), target=self.target.label)

    def probe(self) -> Effects:
        """Ask `/info`; `/health` would answer without a key too."""
        self._info = None
        info = yield from self._fetch_info()
        limit = f", {info.max_tokens} tokens a text" if info.max_tokens else ""
        return ProbeReport(
            [info.model], f"text-embeddings-inference {info.version or ''}, {info.max_texts} texts at once{limit}"
        )

    def _fetch_info(self) -> Effects:
        if self._info is None:
            response = yield from self.ask(tei.encode_info(self._base))
            info = tei.decode_info(response, target=self.target.label)
            self._check(info)
            self._info = info
        return self._info

    def _check(self, info: tei.Info) -> None:
        if info.kind != "embedding":
            raise ModelNotFound(f"serves a {info.kind}, {info.model}, not an embedding model", target=self.target.label)
        if is_other_model(info, self):
            wanted = self.target.model
            raise SpaceMismatch(
                f"serves {info.model}, and the chain wants {wanted}: the vectors could not be compared. Point the target at "
                f"the right server, pass model={info.model!r}, or, if it is the same model under another name, say so: "
                f"Target('tei', url=..., space=VectorSpace({wanted!r}))",
                target=self.target.label,
            )

    def _texts_and_prompt(self, request: EmbedRequest) -> tuple[list[str], str | None]:
        """Return the texts as they are sent, and the prompt that the server is to put before them."""
        prompt_name = self.target.options.get("prompt_names", {}).get(request.role)
        return (self.add_prompts(request) if prompt_name is None else list(request.texts)), prompt_name

    def _message(self, request: EmbedRequest) -> HttpRequest:
        texts, prompt_name = self._texts_and_prompt(request)
        normalize = self.model_space().normalized
        return tei.encode_embed(
            self._base,
            texts,
            truncate=request.truncate,
            normalize=True if normalize is None else normalize,
            prompt_name=prompt_name,
        )

    @property
    def context(self) -> int | None:
        """Tokens the server takes; until it was asked, what the model's files say."""
        return self._info.max_tokens if self._info and self._info.max_tokens else super().context
