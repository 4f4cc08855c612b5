"""`ollama[:<model>]`: Ollama's native API, on OLLAMA_HOST."""

from urllib.parse import urlsplit

from hf_gateway.backends.base import Backend, Report
from hf_gateway.drive import Effects
from hf_gateway.embedding import EmbedRequest
from hf_gateway.errors import AuthenticationFailed, ConfigError, ModelNotFound
from hf_gateway.space import canonical
from hf_gateway.target import checked_url
from hf_gateway.wire import ollama

DEFAULT_PORT = 11434
MAX_TEXTS = 64

# What Ollama's library calls models of the Hub (ollama.com/library, each page names its source).
LIBRARY = {
    "all-minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "bge-large": "BAAI/bge-large-en-v1.5",
    "bge-m3": "BAAI/bge-m3",
    "embeddinggemma": "google/embeddinggemma-300m",
    "mxbai-embed-large": "mixedbread-ai/mxbai-embed-large-v1",
    "nomic-embed-text": "nomic-ai/nomic-embed-text-v1.5",
    "paraphrase-multilingual": "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
    "snowflake-arctic-embed2": "Snowflake/snowflake-arctic-embed-l-v2.0",
}


class OllamaBackend(Backend):
    """Never lets Ollama cut a text in silence, unless `truncate` was asked for.

    Options: `keep_alive`, `options` (Ollama's own).
    """

    kind = "ollama"
    option_names = frozenset({"keep_alive", "options"})
    tuning_options = frozenset({"keep_alive"})
    max_bytes = 8_000_000

    def __init__(self, *args: object, **named: object) -> None:
        """Find the server and the model's name there."""
        super().__init__(*args, **named)  # type: ignore[arg-type]
        if self.target.model is None:
            raise ConfigError("target 'ollama' needs a model: pass model=, or write 'ollama:<model>'")
        self._base = self.target.url or host_url(self.environment.get("OLLAMA_HOST", ""))

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._base

    @property
    def served_model(self) -> str:
        """The model's name there: the library's own for a Hub id that it has, otherwise a pull from hf.co."""
        model = self.target.model or ""
        for name, source in LIBRARY.items():
            if canonical(model).lower() == source.lower():
                return name
        # A Hub id is what a chain passes on; a name of Ollama's own never has a capital letter.
        return f"hf.co/{model}" if "/" in model and model != model.lower() and not model.startswith("hf.co/") else model

    def space_model(self) -> str:
        """Return the Hub id behind the name, where it is known."""
        model = (self.target.model or "").removesuffix(":latest")
        return LIBRARY.get(
            model, canonical(model.removeprefix("hf.co/").partition(":")[0] if model.startswith("hf.co/") else model)
        )

    def embed(self, request: EmbedRequest) -> Effects:
        """Embed a batch."""
        self.check_count(request, MAX_TEXTS)
        options = self.target.options
        message = ollama.encode_embed(
            self._base,
            self.served_model,
            self.prompted(request),
            truncate=request.truncate,
            keep_alive=options.get("keep_alive"),
            options=options.get("options"),
        )
        response = yield from self.ask(message)
        try:
            return ollama.decode_embed(response, len(request.texts), target=self.target.label)
        except ModelNotFound as error:
            if error.status == 404:
                raise ModelNotFound(
                    f"{error.message}; pull it: ollama pull {self.served_model}", target=error.target, status=404
                ) from None
            raise
        except AuthenticationFailed as error:
            raise AuthenticationFailed(
                f"{error.message}; a cloud model needs `ollama signin` on that machine",
                target=error.target,
                status=error.status,
            ) from None

    def probe(self) -> Effects:
        """List what is pulled, and say where the model really runs."""
        response = yield from self.ask(ollama.encode_tags(self._base))
        pulled = ollama.decode_tags(response, target=self.target.label)
        wanted = self.served_model
        mine = next(
            (model for model in pulled if model.name.removesuffix(":latest") == wanted.removesuffix(":latest")), None
        )
        if mine is None:
            raise ModelNotFound(f"{wanted} is not pulled there: ollama pull {wanted}", target=self.target.label)
        return Report(
            [mine.name], f"a cloud model, run by {mine.remote_host}" if mine.remote_host else "runs on that machine"
        )


def host_url(value: str) -> str:
    """Read OLLAMA_HOST as Ollama does: a host, a host and port, or a URL; 0.0.0.0 means this machine."""
    value = value.strip() or "127.0.0.1"
    parts = urlsplit(value if "://" in value else f"http://{value}")
    host = parts.hostname or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound to
    port = parts.port or (DEFAULT_PORT if "://" not in value else {"https": 443}.get(parts.scheme, 80))
    shown = f"[{host}]" if ":" in host else host
    return checked_url(f"{parts.scheme}://{shown}:{port}{parts.path}", "ollama, from OLLAMA_HOST")
