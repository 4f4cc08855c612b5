"""A target for embeddings, with the checks of every answer."""

import unicodedata
from dataclasses import dataclass, field, replace

from hf_gateway.backends.embedding import EmbeddingAbility
from hf_gateway.errors import (
    BadResponse,
    BatchTooLarge,
    GatewayError,
    InvalidRequest,
)
from hf_gateway.runtime.effects import Effects
from hf_gateway.settings.embedding import EmbedOptions
from hf_gateway.spaces.guard import Guard
from hf_gateway.spaces.space_check import SpaceCheck
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.values.vectors import Vectors
from hf_gateway.values.wording import quantity


@dataclass
class SeenDimension:
    """The dimension of a chain's first vectors, which all later ones must have, or they would corrupt an index."""

    value: int | None = None
    """None before the first vectors."""


@dataclass(eq=False)
class EmbeddingCandidate(TargetCandidate):
    """A target for embeddings."""

    ability: EmbeddingAbility
    """Its ability."""
    seen: SeenDimension = field(default_factory=SeenDimension)
    """The dimension of the chain's vectors, shared by all its candidates."""
    guard: Guard | None = None
    """Decides whose vectors may be used."""

    @property
    def space(self) -> VectorSpace:
        """The space declared for it."""
        return self.ability.space()

    @property
    def required_space(self) -> VectorSpace:
        """The space that its vectors are held to: the chain's, or its own where each target may have another."""
        return self.guard.space_of(self) if self.guard else self.space

    @property
    def authoritative(self) -> bool:
        """Whether the model's own files make its vectors, in this process."""
        return self.ability.authoritative

    @property
    def one_role(self) -> bool:
        """Whether queries and documents get the same vectors."""
        return self.ability.one_role

    @property
    def mixes_roles(self) -> bool:
        """Whether one request may contain texts of both roles."""
        return self.ability.mixes_roles

    @property
    def most_texts(self) -> int | None:
        """Maximum texts per request, including canaries; None for any number."""
        return self.ability.batch_texts

    @property
    def batch_texts(self) -> int | None:
        """Maximum texts of a caller per request, besides canaries; None for any number."""
        return self.guard.batch_texts(self) if self.guard else self.most_texts

    @property
    def space_check(self) -> SpaceCheck | None:
        """The result of its space check, as far as it is known."""
        return self.guard.space_check(self) if self.guard else None

    def refusal(self) -> GatewayError | None:
        """Return why no request may be sent to it: a missing key, another vector space; or None."""
        return super().refusal() or (self.guard.refusal(self) if self.guard else None)

    def answer(self, request: EmbedRequest) -> Effects:
        """Embed with all checks; the guard's are made before the first answer and after each."""
        checked: Usage | None = None
        if self.guard is not None:
            checked = yield from self.guard.check_before_first_use(self)
        answer: EmbedAnswer = yield from self.guard.embed(self, request) if self.guard else self.embed_shaped(request)
        if checked is not None and answer.usage.input_tokens is not None:
            answer = replace(answer, usage=answer.usage + checked)
        if not self.authoritative and (fault := _check_vectors(answer.vectors, request)):
            raise BadResponse(fault, target=self.label)
        if self.seen.value is None:
            self.seen.value = answer.vectors.dim
        elif answer.vectors.dim != self.seen.value:
            raise BadResponse(
                f"vectors of {answer.vectors.dim} numbers where this chain gave {self.seen.value} before; "
                "is it another model, or has the model there changed?",
                target=self.label,
            )
        if self.guard is not None:
            answer = yield from self.guard.check_answer(self, answer)
        return answer

    def served_space(self) -> Effects:
        """Ask the target which space it serves."""
        return self.ability.served_space()

    def embed_shaped(self, request: EmbedRequest) -> Effects:
        """Embed, check the answer, and truncate and scale it by the chain's settings."""
        try:
            answer: EmbedAnswer = yield from self.ability.embed(request)
        except BatchTooLarge as limit:
            self.ability.note_batch_limit(limit, request)
            raise
        vectors = answer.vectors
        if len(vectors) != len(request.texts):
            wrong = f"{quantity(len(vectors), 'vector')} for {quantity(len(request.texts), 'text')}"
            raise BadResponse(f"answered with {wrong}", target=self.label)
        if fault := vectors.fault():
            raise BadResponse(f"vectors that are not embeddings: {fault}", target=self.label)
        expected = self.ability.model_space().dimension
        if expected is not None and vectors.dim != expected:
            raise BadResponse(
                f"vectors of {vectors.dim} numbers, and {self.ability.space_model()} has {expected}", target=self.label
            )
        return replace(answer, vectors=with_dimensions(vectors, self.ability.options))


def _check_vectors(vectors: Vectors, request: EmbedRequest) -> str | None:
    """Return what no model does: the same vector for texts of which no two are alike.

    Many models ignore case, accents and blanks, and truncated texts may differ only in the part that was cut off.
    """
    texts = request.texts
    if len(texts) < 3 or request.truncate or any(vectors[place] != vectors[0] for place in range(1, len(texts))):
        return None
    if len(set(map(_single_line, texts))) < len(texts):
        return None
    return f"one and the same vector for {len(texts)} different texts"


def _single_line(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not letter.isspace() and not unicodedata.combining(letter))


def with_dimensions(vectors: Vectors, options: EmbedOptions) -> Vectors:
    """Truncate and scale here rather than on the server: otherwise targets would differ in it.

    Args:
        vectors: a target's vectors.
        options: `dimensions` and `normalize`.
    """
    dimensions = options.dimensions
    if dimensions is not None:
        if dimensions > vectors.dim:
            raise InvalidRequest(f"dimensions={dimensions} is more than the model has ({vectors.dim})")
        if dimensions < vectors.dim:
            vectors = vectors.truncated(dimensions)
    return vectors.normalized() if options.normalize else vectors
