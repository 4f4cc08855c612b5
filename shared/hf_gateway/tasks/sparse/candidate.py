"""A target for sparse embeddings, with the checks of every answer."""

import math
from dataclasses import dataclass

from hf_gateway.backends.sparse import SparseAbility
from hf_gateway.errors import BadResponse
from hf_gateway.tasks.vectors import VectorCandidate
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.sparse import SparseAnswer

MIN_DIFFERENT_TEXTS = 3
"""From this number on, different texts without any entry in their vectors are a fault of the server."""


@dataclass(eq=False)
class SparseCandidate(VectorCandidate[SparseAnswer]):
    """A target for sparse embeddings."""

    ability: SparseAbility
    """Its ability."""

    def shaped(self, answer: SparseAnswer) -> SparseAnswer:
        """Check the numbers. Raises BadResponse for one that is not finite, or an index outside of the model's vocabulary."""
        vectors = answer.vectors
        if not all(map(math.isfinite, vectors.values)):
            raise BadResponse("vectors with a number that is NaN or infinite", target=self.label)
        size, largest = self.ability.model_space().dimension, max(vectors.indices, default=0)
        if size is not None and largest >= size:
            raise BadResponse(
                f"a vector with an entry at {largest}, and {self.ability.space_model()} has a vocabulary of {size}",
                target=self.label,
            )
        return answer

    def check(self, answer: SparseAnswer, request: EmbedRequest) -> None:
        """Raise BadResponse if a server returns nothing but empty vectors for several texts.

        Args:
            answer: the answer, without canaries.
            request: the caller's texts.
        """
        texts = set(request.texts)
        if not self.authoritative and len(texts) >= MIN_DIFFERENT_TEXTS and not answer.vectors.indices:
            raise BadResponse(f"vectors without any entry for {len(texts)} different texts", target=self.label)
