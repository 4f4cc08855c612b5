"""What the kinds that speak OpenAI's embeddings form have in common."""

from collections.abc import Generator, Sequence
from typing import Any, Literal

from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.http import HttpResponse
from hf_gateway.wire import openai


class Embeddings:
    """OpenAI's embeddings form, with vectors packed in base64 where the server does that.

    OpenAI's own clients ask for base64, so most servers know it; some ignore it and send floats, a few refuse.

    Args:
        ability: through which requests go.
        encoding: "auto" asks once more without base64 when a server refuses it, and remembers.
    """

    def __init__(self, ability: EmbeddingAbility, encoding: Literal["auto", "float", "base64"] = "auto") -> None:
        self._ability = ability
        self._auto = encoding == "auto"
        self._encoding: openai.Encoding = "base64" if encoding == "auto" else encoding

    def of(self, url: str, texts: Sequence[str]) -> Effects:
        """Ask for the vectors of texts; returns an `EmbedAnswer`."""
        response = yield from self._ask(url, texts, self._encoding)
        if self._auto and self._encoding == "base64" and openai.refuses_encoding(response):
            response = yield from self._ask(url, texts, "float")
            if 200 <= response.status < 300:
                self._encoding = "float"
        return openai.decode_embeddings(response, len(texts), target=self._ability.target.label)

    def _ask(self, url: str, texts: Sequence[str], encoding: openai.Encoding) -> Generator[Any, Any, HttpResponse]:
        return self._ability.ask(openai.encode_embeddings(url, self._ability.target.model, texts, encoding=encoding))
