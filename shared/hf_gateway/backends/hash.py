"""`hash`: lexical vectors by feature hashing; no model, no network, nothing to install."""

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.engines.hashing import DEFAULT_DIM, MAX_CHARS, HashingEngine
from hf_gateway.errors import ConfigError, ContextOverflow
from hf_gateway.runtime.effects import Compute, Effects
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.values import kinds
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace

MAX_TEXTS = 256


class HashEmbedding(EmbeddingAbility):
    """Deterministic, and the same for queries and documents; a space of its own, never to be mixed with a model's."""

    most_texts = MAX_TEXTS

    def __init__(self, server: Server, options: EmbedOptions) -> None:
        super().__init__(server, options)
        wanted = options.dimensions
        dim = self.target.options.get("dim", wanted or DEFAULT_DIM)
        if wanted is not None and wanted != dim:
            # Truncated hash vectors are not those of the shorter hash, and their space would not show it.
            raise ConfigError(f"target 'hash:{dim}' cannot be cut to dimensions={wanted}; write 'hash:{wanted}'")
        try:
            self._engine = HashingEngine(dim)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"target 'hash': {error}") from None
        self._dim = dim

    def read_model_space(self) -> VectorSpace:
        """Return the space of this hashing: its version and dimension."""
        return VectorSpace(
            self.space_model(),
            dimension=self._dim,
            pooling="sum",
            normalized=True,
            query_prompt="",
            document_prompt="",
            precision="float",
        )

    def space_model(self) -> str:
        """Return the name of the scheme: the chain's model has no influence."""
        return "hf-gateway/feature-hashing-v1"

    @property
    def authoritative(self) -> bool:
        """Always True: the vectors are computed here."""
        return True

    def embed(self, request: EmbedRequest) -> Effects:
        """Hash a few hundred texts at a time, outside of the event loop."""
        self.check_count(request)
        for index, text in enumerate(request.texts):
            if len(text) > MAX_CHARS and not request.truncate:
                raise ContextOverflow(
                    f"text {index} of {len(request.texts)} has {len(text)} characters, and {MAX_CHARS} are read at most; "
                    "split it, or pass truncate=True to lose what is beyond",
                    target=self.target.label,
                    place=index,
                )
        vectors = yield Compute(lambda: self._engine.embed(self.add_prompts(request)))
        return EmbedAnswer(vectors, Usage(0), self.space_model())

    def probe(self) -> Effects:
        """Report the scheme at once."""
        yield from ()
        return ProbeReport([self.space_model()], f"{self._dim} numbers a vector")


class HashServer(Server):
    """No server at all: the vectors are computed in this process. Options: `dim`, the vectors' dimension."""

    kind = kinds.HASH
    abilities = {"embedding": HashEmbedding}
    option_types = OPTION_TYPES
    option_names = frozenset({"dim"})
