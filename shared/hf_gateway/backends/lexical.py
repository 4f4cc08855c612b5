"""`lexical`: ranks documents by the words that they share with the query; no model, no network, nothing to install."""

from hf_gateway.backends.base import ProbeReport, Server
from hf_gateway.backends.option_types import OPTION_TYPES
from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.engines.bm25 import bm25_scores
from hf_gateway.runtime.effects import Compute, Effects
from hf_gateway.values import kinds
from hf_gateway.values.rerank import RerankAnswer, RerankRequest
from hf_gateway.values.usage import Usage

MODEL = "hf-gateway/bm25"


class LexicalRerank(RerankAbility):
    """Scores by BM25, all documents of a call at once, since words are counted in all of them."""

    def rerank(self, request: RerankRequest) -> Effects:
        """Score the documents, outside of the event loop."""
        scores = yield Compute(lambda: bm25_scores(request.query, request.documents))
        return RerankAnswer(scores, "bm25", Usage(0), MODEL)

    def probe(self) -> Effects:
        """Report the method at once."""
        yield from ()
        return ProbeReport([MODEL], "words that a document shares with the query; synonyms are not found")


class LexicalServer(Server):
    """No server at all: the scores are computed in this process. A last resort, which has to be named in `targets`."""

    kind = kinds.LEXICAL
    abilities = {"rerank": LexicalRerank}
    option_types = OPTION_TYPES
