"""`ollama[:<model>]`: Ollama's native API, on OLLAMA_HOST."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Unpack

from hf_gateway.backends.base import ProbeReport, Server, ServerArguments
from hf_gateway.backends.chat import ChatAbility
from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.served import ProbeOnce
from hf_gateway.backends.thoughts import OPTIONS as CHAT_OPTIONS
from hf_gateway.backends.thoughts import PLAIN_REASONING, ThinkTags
from hf_gateway.errors import AuthenticationFailed, ConfigError, ModelNotFound
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.chat import ChatOptions
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.storage.notices import notice_once
from hf_gateway.values import kinds
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatEvent, ChatRequest
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.redaction import shown_url
from hf_gateway.values.target import Target, checked_url, parsed_url
from hf_gateway.values.vector_space import VectorSpace, canonical
from hf_gateway.wire import ollama, ollama_chat
from hf_gateway.wire.ollama_chat import ForcedCall

DEFAULT_PORT = 11434
MAX_TEXTS = 64
MIN_CONTEXT_TOKENS = 2048
"""Context that every Ollama accepts without a `num_ctx`; what it accepts beyond that depends on the machine."""

# Names in Ollama's library of models on the Hub (ollama.com/library, each page names its source). A model's own name comes before
# its other tags. A tag that is not listed is a model of its own: `:33m` of all-minilm is another one than `:22m`.
LIBRARY = {
    "all-minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "all-minilm:22m": "sentence-transformers/all-MiniLM-L6-v2",
    "all-minilm:l6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    "all-minilm:33m": "sentence-transformers/all-MiniLM-L12-v2",
    "all-minilm:l12-v2": "sentence-transformers/all-MiniLM-L12-v2",
    "bge-large": "BAAI/bge-large-en-v1.5",
    "bge-large:335m": "BAAI/bge-large-en-v1.5",
    "bge-m3": "BAAI/bge-m3",
    "bge-m3:567m": "BAAI/bge-m3",
    "embeddinggemma": "google/embeddinggemma-300m",
    "embeddinggemma:300m": "google/embeddinggemma-300m",
    "mxbai-embed-large": "mixedbread-ai/mxbai-embed-large-v1",
    "mxbai-embed-large:335m": "mixedbread-ai/mxbai-embed-large-v1",
    "nomic-embed-text": "nomic-ai/nomic-embed-text-v1.5",
    "nomic-embed-text:v1.5": "nomic-ai/nomic-embed-text-v1.5",
    "paraphrase-multilingual": "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
    "paraphrase-multilingual:278m": "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
    "qwen3-embedding:0.6b": "Qwen/Qwen3-Embedding-0.6B",
    "qwen3-embedding:4b": "Qwen/Qwen3-Embedding-4B",
    "qwen3-embedding:8b": "Qwen/Qwen3-Embedding-8B",
    "qwen3-embedding": "Qwen/Qwen3-Embedding-8B",
    "snowflake-arctic-embed": "Snowflake/snowflake-arctic-embed-l",
    "snowflake-arctic-embed:335m": "Snowflake/snowflake-arctic-embed-l",
    "snowflake-arctic-embed:l": "Snowflake/snowflake-arctic-embed-l",
    "snowflake-arctic-embed2": "Snowflake/snowflake-arctic-embed-l-v2.0",
    "snowflake-arctic-embed2:568m": "Snowflake/snowflake-arctic-embed-l-v2.0",
    "deepseek-r1:8b": "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B",
    "gpt-oss:20b": "openai/gpt-oss-20b",
    "gpt-oss:120b": "openai/gpt-oss-120b",
    "llama3.1": "meta-llama/Llama-3.1-8B-Instruct",
    "llama3.1:70b": "meta-llama/Llama-3.1-70B-Instruct",
    "llama3.2": "meta-llama/Llama-3.2-3B-Instruct",
    "llama3.2:1b": "meta-llama/Llama-3.2-1B-Instruct",
    "llama3.3": "meta-llama/Llama-3.3-70B-Instruct",
    "mistral": "mistralai/Mistral-7B-Instruct-v0.3",
    "phi4": "microsoft/phi-4",
    "qwen2.5": "Qwen/Qwen2.5-7B-Instruct",
    "qwen3:4b": "Qwen/Qwen3-4B",
    "qwen3:8b": "Qwen/Qwen3-8B",
    "qwen3:32b": "Qwen/Qwen3-32B",
    "smollm2": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "smollm2:360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2:135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
}


_HUB_HOSTS = ("hf.co/", "huggingface.co/")
"""Prefixes of the name of a model that Ollama pulls from the Hub."""


class OllamaEmbedding(EmbeddingAbility):
    """Embeddings by Ollama, which truncates no text silently, unless `truncate` was asked for."""

    server: "OllamaServer"
    most_texts = MAX_TEXTS
    max_bytes = 8_000_000

    def __init__(self, server: Server, options: EmbedOptions) -> None:
        super().__init__(server, options)
        self._asked = ProbeOnce()

    def space_model(self) -> str:
        """Return the Hub id of the model, if it is known."""
        model = (self.target.model or "").removesuffix(":latest")
        for host in _HUB_HOSTS:
            if model.startswith(host):
                return canonical(model.removeprefix(host).partition(":")[0])
        return LIBRARY.get(model, canonical(model))

    def served_space(self) -> Effects:
        """Ask `/api/show` about the pulled file: its quantisation is in no name."""
        return (yield from self._asked.run(self._fetch_space, self.target.label))

    def _fetch_space(self) -> Effects:
        response = yield from self.ask(ollama.encode_show(self.server.base_url, self.server.served_model))
        shown = ollama.decode_show(response, target=self.target.label)
        options = self.options
        return VectorSpace(
            self.model_space().model,
            dimension=shown.dimension if options.dimensions is None else None,
            pooling=shown.pooling,
            max_tokens=self._cut_length(shown) if options.truncate else None,
            precision=shown.precision,
        )

    def _cut_length(self, shown: ollama.Shown) -> int | None:
        given = self.server.own_options().get("num_ctx", shown.num_ctx)
        if given is None or shown.max_tokens is None:
            return shown.max_tokens if (shown.max_tokens or 0) <= MIN_CONTEXT_TOKENS else None
        return min(int(given), shown.max_tokens)

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch."""
        self.check_count(request)
        options = self.target.options
        message = ollama.encode_embed(
            self.server.base_url,
            self.server.served_model,
            self.add_prompts(request),
            truncate=request.truncate,
            keep_alive=options.get("keep_alive"),
            options=self.server.own_options(),
        )
        response = yield from self.ask(message)
        with _with_advice(self.server.served_model):
            return ollama.decode_embed(response, len(request.texts), target=self.target.label)

    def probe(self) -> Effects:
        """List the pulled models, and where the model really runs."""
        return self.server.find_model()


class OllamaChat(ChatAbility):
    """Chat with Ollama."""

    server: "OllamaServer"

    def __init__(self, server: Server, options: ChatOptions) -> None:
        super().__init__(server, options)
        self._tags = ThinkTags(self.target)

    @property
    def context(self) -> int | None:
        """Maximum tokens as configured, since Ollama's own default depends on the machine."""
        length = self._own_options().get("num_ctx")
        return int(length) if length is not None else None

    def chat(self, request: ChatRequest, builder: AnswerBuilder) -> Effects:
        """Answer, streamed or whole.

        Args:
            request: the conversation.
            builder: collects the answer.
        """
        label, model = self.target.label, served_name(request.model or "")
        encode = functools.partial(
            ollama_chat.encode_chat,
            self.server.base_url,
            model,
            target=label,
            keep_alive=self.target.options.get("keep_alive"),
            options=self._own_options(),
            send_reasoning=self.target.options.get("send_reasoning", "auto") != "never",
        )
        forced = ForcedCall(request.forced_tools) if request.forced_tools else None
        thoughts = self._tags.reader(request)
        self._warn_of_unsent(request)

        def read(event: ChatEvent) -> ChatEvent:
            event = thoughts.read(event) if thoughts else event
            return forced.read(event) if forced else event

        with _with_advice(model):
            yield from self.send_chat(
                request,
                builder,
                encode,
                lambda response: read(ollama_chat.decode_chat(response, target=label)),
                lambda headers: ollama_chat.OllamaStreamDecoder(headers, label, read),
            )
        yield from self._tags.finish(request, thoughts, builder)

    def _warn_of_unsent(self, request: ChatRequest) -> None:
        if unsent := (request.sampling.extra_body or {}).keys() - ollama_chat.OWN_OPTIONS:
            notice_once(
                f"{self.target.label}: Ollama has no {', '.join(sorted(unsent))}, so that part of extra_body is not sent there"
            )

    def _own_options(self) -> dict[str, Any]:
        options = self.server.own_options()
        if self.options.context_window is not None:
            options.setdefault("num_ctx", self.options.context_window)
        return options

    def probe(self) -> Effects:
        """List the pulled models, and where the model really runs."""
        return self.server.find_model()


class OllamaServer(Server):
    """A server of Ollama.

    Options: `keep_alive`, `num_ctx` (tokens of context; Ollama's own default is small), `options` (Ollama's own); for
    chat `stream` (False for a proxy that cannot stream), `send_reasoning` ("auto", "never") and `think_tags`, as for `openai`.
    """

    kind = kinds.OLLAMA
    abilities = {"embedding": OllamaEmbedding, "chat": OllamaChat}
    option_types = {**OPTION_TYPES, "send_reasoning": PLAIN_REASONING}
    option_names = frozenset({"keep_alive", "num_ctx", "options", "stream"}) | CHAT_OPTIONS
    tuning_options = frozenset({"keep_alive", "stream"}) | CHAT_OPTIONS

    def __init__(self, target: Target, **given: Unpack[ServerArguments]) -> None:
        super().__init__(target, **given)
        self._url = self.target.url or host_url(self.environment.get("OLLAMA_HOST", ""))

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._url

    @property
    def served_model(self) -> str:
        """The model's name there: the library's name of a Hub id, otherwise a pull from hf.co."""
        return served_name(self.target.model or "")

    def own_options(self) -> dict[str, Any]:
        """Return the target's options that Ollama itself accepts with each request."""
        options = dict(self.target.options.get("options") or {})
        if (length := self.target.options.get("num_ctx")) is not None:
            options["num_ctx"] = length
        return options

    def find_model(self) -> Effects:
        """List the pulled models, and where the model really runs; returns a `ProbeReport`."""
        response = yield from self.ask(ollama.encode_tags(self.base_url))
        pulled = ollama.decode_tags(response, target=self.target.label)
        wanted = self.served_model
        mine = next(
            (model for model in pulled if model.name.removesuffix(":latest") == wanted.removesuffix(":latest")), None
        )
        if mine is None:
            raise ModelNotFound(f"{wanted} is not pulled there: ollama pull {wanted}", target=self.target.label)
        return ProbeReport(
            [mine.name], f"a cloud model, run by {mine.remote_host}" if mine.remote_host else "runs on that machine"
        )


def served_name(model: str) -> str:
    """Return a model's name in Ollama: the library's name of a Hub id, otherwise a pull from hf.co."""
    for name, source in LIBRARY.items():
        if canonical(model).lower() == source.lower():
            return name
    # A chain passes on a Hub id; Ollama's own names never have a capital letter.
    return f"hf.co/{model}" if "/" in model and model != model.lower() and not model.startswith(_HUB_HOSTS) else model


@contextlib.contextmanager
def _with_advice(model: str) -> Iterator[None]:
    """Add advice for that machine to the error for a model that is missing or not allowed."""
    try:
        yield
    except ModelNotFound as error:
        if error.status == 404:
            raise error.restated(f"{error.message}; pull it: ollama pull {model}", None) from None
        raise
    except AuthenticationFailed as error:
        raise error.restated(f"{error.message}; a cloud model needs `ollama signin` on that machine", None) from None


def host_url(value: str) -> str:
    """Parse OLLAMA_HOST as Ollama does: a host, a host and port, or a URL; 0.0.0.0 means this machine."""
    value = value.strip() or "127.0.0.1"
    url = value if "://" in value else f"http://{value}"
    parts, given_port = parsed_url(url)
    if parts is None:
        raise ConfigError(f"OLLAMA_HOST names {shown_url(url)!r}, which is not a URL; write http://host:{DEFAULT_PORT}")
    host = parts.hostname or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound to
    port = given_port or (DEFAULT_PORT if "://" not in value else {"https": 443}.get(parts.scheme, 80))
    shown = f"[{host}]" if ":" in host else host
    return checked_url(f"{parts.scheme}://{shown}:{port}{parts.path}", "ollama, from OLLAMA_HOST")
