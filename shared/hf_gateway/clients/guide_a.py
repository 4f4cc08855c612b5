"""The Python names of the integration guide for embeddings and chat, over gateways of this process; no server is needed.

The order of the targets is the guide's: Hugging Face, then Ollama, then for embeddings vectors of hashes. Vectors of different
models cannot be compared, so a client keeps to the space of its first vector, and raises an error where only another is left.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, Self, TypedDict, Unpack

from hf_gateway.gateway import Gateway
from hf_gateway.settings.fields import TargetsInput
from hf_gateway.tasks.chat.gateway import ChatGateway
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from hf_gateway.values.chat import Message
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.kinds import kind_of

EMBEDDING_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
CHAT_MODEL = "meta-llama/Meta-Llama-3-8B-Instruct"
EMBEDDING_TARGETS = ("hf", "ollama:all-minilm", "hash:384")
CHAT_TARGETS = ("hf", "ollama:llama3:8b")
MAX_ANSWER_TOKENS = 4096
DEFAULT_TEMPERATURE_RATIO = 0.7

_lock = fork_lock()


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of a client."""

    embedding_model: str
    chat_model: str
    embedding_targets: TargetsInput
    chat_targets: TargetsInput
    api_key: str | None


class HuggingFaceClient:
    """Embeds texts and answers conversations, at the first target that can."""

    def __init__(
        self,
        *,
        embedding_model: str = EMBEDDING_MODEL,
        chat_model: str = CHAT_MODEL,
        embedding_targets: TargetsInput = EMBEDDING_TARGETS,
        chat_targets: TargetsInput = CHAT_TARGETS,
        api_key: str | None = None,
    ) -> None:
        """Build both chains; nothing is loaded or connected to.

        Args:
            embedding_model: Hub id of the model for embeddings.
            chat_model: Hub id of the model for chat.
            embedding_targets: targets for embeddings, in order.
            chat_targets: targets for chat, in order.
            api_key: the key for Hugging Face; by default HUGGINGFACE_API_KEY, or another place where tools keep it.

        Raises:
            ConfigError: a target is invalid.
        """
        self.embedding_gateway: EmbeddingGateway = Gateway(
            embedding_model, embedding_targets, api_key=api_key, on_space_change="separate"
        )
        """The gateway for embeddings."""
        self.chat_gateway: ChatGateway = Gateway(chat_model, chat_targets, task="chat", api_key=api_key)
        """The gateway for chat."""

    def generate_embedding(self, text: str) -> list[float]:
        """Return the vector of a text. Raises GatewayError if no target of this client's space answers."""
        vector: list[float] = self.embedding_gateway.embed([text]).vectors[0]
        return vector

    async def agenerate_embedding(self, text: str) -> list[float]:
        """Like `generate_embedding`, without blocking the event loop."""
        vector: list[float] = (await self.embedding_gateway.aembed([text])).vectors[0]
        return vector

    def stream_chat(
        self,
        messages: Iterable[Message],
        *,
        temperature: float = DEFAULT_TEMPERATURE_RATIO,
        max_tokens: int = MAX_ANSWER_TOKENS,
    ) -> Iterator[dict[str, Any]]:
        """Yield `{"text": …}` for each piece of the answer, and `{"done": True}` at its end.

        Args:
            messages: the conversation: dicts with `role` and `content`.
            temperature: of sampling.
            max_tokens: of the answer, at most.

        Raises:
            GatewayError: no target answers; after the first piece StreamInterrupted, and no `done`.
        """
        with self.chat_gateway.stream(messages, temperature=temperature, max_tokens=max_tokens) as stream:
            yield from ({"text": event.text} for event in stream if event.text)
        yield {"done": True}

    async def astream_chat(
        self,
        messages: Iterable[Message],
        *,
        temperature: float = DEFAULT_TEMPERATURE_RATIO,
        max_tokens: int = MAX_ANSWER_TOKENS,
    ) -> AsyncIterator[dict[str, Any]]:
        """Like `stream_chat`, without blocking the event loop.

        Args:
            messages: the conversation.
            temperature: of sampling.
            max_tokens: of the answer, at most.
        """
        async with self.chat_gateway.astream(messages, temperature=temperature, max_tokens=max_tokens) as stream:
            async for event in stream:
                if event.text:
                    yield {"text": event.text}
        yield {"done": True}

    def check_available(self) -> bool:
        """Return whether a target with a model answers; asks them all, without letting them compute.

        Vectors of hashes, which can always be had, do not count.
        """
        gateways = (self.embedding_gateway, self.chat_gateway)
        return any(
            check.answers
            for gateway in gateways
            for target, check in zip(gateway.targets, gateway.check(), strict=True)
            if kind_of(target.kind).has_model
        )

    def close(self) -> None:
        """Close connections; the client can be used again afterwards."""
        self.embedding_gateway.close()
        self.chat_gateway.close()

    def __enter__(self) -> Self:
        """Use as `with HuggingFaceClient() as client`."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()


_clients: dict[tuple[tuple[str, object], ...], HuggingFaceClient] = {}


def get_huggingface_client(**options: Unpack[ClientOptions]) -> HuggingFaceClient:
    """Return the client of this process for these options, so that all callers get vectors of one space.

    options: the arguments of `HuggingFaceClient`; each must be hashable.

    Raises:
        ConfigError: a target is invalid.
    """
    key = tuple(sorted(options.items()))
    with _lock:
        client = _clients.get(key)
        if client is None:
            client = _clients[key] = HuggingFaceClient(**options)
    return client
