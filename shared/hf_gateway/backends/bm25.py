"""`bm25`: the weights of words by BM25, computed here; no model, no network, nothing to install."""

from typing import Any

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.sparse import SparseAbility
from hf_gateway.engines.term_weights import MAX_CHARS, TermWeights
from hf_gateway.errors import ConfigError, ContextOverflow
from hf_gateway.runtime.effects import Compute, Effects
from hf_gateway.settings.sparse import SparseOptions
from hf_gateway.values import kinds
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.sparse import SparseAnswer, SparseVectors
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace

MAX_TEXTS = 256


class Bm25Sparse(SparseAbility):
    """Weighs the words of texts; its space contains the parameters, since they change every vector of a document."""

    most_texts = MAX_TEXTS

    def __init__(self, server: Server, options: SparseOptions) -> None:
        super().__init__(server, options)
        given = self.target.options
        self._weights = TermWeights(
            k1=_number(given, "k1", 100.0, TermWeights.k1),
            b=_number(given, "b", 1.0, TermWeights.b),
            average_terms=given.get("average_terms", TermWeights.average_terms),
        )

    def read_model_space(self) -> VectorSpace:
        """Return the space of these weights: their version and parameters."""
        weights = self._weights
        return VectorSpace(
            self.space_model(),
            pooling=f"bm25 k1={weights.k1:g} b={weights.b:g} average_terms={weights.average_terms}",
            query_prompt="",
            document_prompt="",
            precision="float",
        )

    def space_model(self) -> str:
        """Return the name of the scheme: the chain's model has no influence."""
        return "hf-gateway/bm25-v1"

    @property
    def authoritative(self) -> bool:
        """Always True: the vectors are computed here."""
        return True

    @property
    def one_role(self) -> bool:
        """Always False: a query has other weights than a document."""
        return False

    @property
    def mixes_roles(self) -> bool:
        """Always False: a request is of one role."""
        return False

    def embed(self, request: EmbedRequest) -> Effects:
        """Weigh a few hundred texts at a time, outside of the event loop."""
        self.check_count(request)
        for index, text in enumerate(request.texts):
            if len(text) > MAX_CHARS and not request.truncate:
                raise ContextOverflow(
                    f"text {index} of {len(request.texts)} has {len(text)} characters, and {MAX_CHARS} are read at most; "
                    "split it, or pass truncate=True to lose what is beyond",
                    target=self.target.label,
                    place=index,
                )
        vectors = yield Compute(lambda: self._vectors(request))
        return SparseAnswer(vectors, Usage(0), self.space_model())

    def _vectors(self, request: EmbedRequest) -> SparseVectors:
        weigh = self._weights.query if request.role == "query" else self._weights.document
        return SparseVectors.of(map(weigh, self.add_prompts(request)))

    def probe(self) -> Effects:
        """Report the scheme at once."""
        yield from ()
        return ProbeReport([self.space_model()], f"{self.model_space().pooling}; the store applies the rarity of words")


def _number(options: Any, name: str, most: float, default: float) -> float:
    value = options.get(name, default)
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise ConfigError(f"target 'bm25': {name} is a number from 0 to {most:g}, not {value!r:.80}")
    return float(value)


class Bm25Server(Server):
    """No server at all: the vectors are computed in this process.

    Options: `k1` and `b`, BM25's parameters, and `average_terms`, the length of an average document in words.
    """

    kind = kinds.BM25
    abilities = {"sparse": Bm25Sparse}
    option_types = {**OPTION_TYPES, "average_terms": "whole"}
    option_names = frozenset({"k1", "b", "average_terms"})
