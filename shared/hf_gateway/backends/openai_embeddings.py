"""OpenAI's embeddings API, shared by several kinds."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.backends.gateway_space import GatewaySpace
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.wire import openai


class Embeddings:
    """OpenAI's embeddings API, with vectors in base64 if the server supports it.

    OpenAI's own clients request base64, so most servers support it; some ignore it and send floats, a few refuse.

    Args:
        ability: sends the requests.
        encoding: "auto" repeats a request without base64 if a server refuses it, and remembers that.
    """

    def __init__(self, ability: EmbeddingAbility, encoding: Literal["auto", "float", "base64"] = "auto") -> None:
        self._ability = ability
        self._auto = encoding == "auto"
        self._encoding: openai.Encoding = "base64" if encoding == "auto" else encoding

    def of(self, url: str, texts: Sequence[str]) -> Effects:
        """Request the vectors of texts; returns an `EmbedAnswer`.

        Args:
            url: the server's base URL.
            texts: the texts to embed.
        """

        def ask(encoding: openai.Encoding) -> Generator[Any, Any, HttpResponse]:
            return self._ability.ask(
                openai.encode_embeddings(url, self._ability.target.model, texts, encoding=encoding)
            )

        return (yield from self._decoded(ask, len(texts)))

    def in_space(self, url: str, request: EmbedRequest, gateway: GatewaySpace) -> Effects:
        """Request the vectors of texts, in the space of a server of this package if it is one; returns an `EmbedAnswer`.

        Args:
            url: the server's base URL.
            request: the texts and their role.
            gateway: what the server reports.
        """

        def message(encoding: openai.Encoding) -> HttpRequest:
            known = gateway.reported is not None
            return openai.encode_embeddings(
                url,
                self._ability.target.model,
                request.texts if known else self._ability.add_prompts(request),
                encoding=encoding,
                role=request.role if known else None,
            )

        def ask(encoding: openai.Encoding) -> Generator[Any, Any, HttpResponse]:
            return gateway.ask(lambda: message(encoding))

        return (yield from self._decoded(ask, len(request.texts)))

    def _decoded(self, ask: Callable[[openai.Encoding], Generator[Any, Any, HttpResponse]], count: int) -> Effects:
        response = yield from ask(self._encoding)
        if self._auto and self._encoding == "base64" and openai.refuses_encoding(response):
            response = yield from ask("float")
            if 200 <= response.status < 300:
                self._encoding = "float"
        return openai.decode_embeddings(response, count, target=self._ability.target.label)
