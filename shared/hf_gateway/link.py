"""Link: a backend as the chain sees it, with its breaker and the checks that hold for every answer."""

from dataclasses import dataclass, field, replace

from hf_gateway.backends.base import Backend
from hf_gateway.breaker import Breaker
from hf_gateway.drive import Effects
from hf_gateway.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.errors import BadResponse, GatewayError, InvalidRequest, KeyMissing
from hf_gateway.key_policy import KeyLevel, fix
from hf_gateway.vectors import Vectors


@dataclass
class SeenDimension:
    """The dimension of a chain's first vectors, which all later ones must have: another would spoil an index."""

    value: int | None = None


@dataclass(eq=False)
class Link:
    """A backend in the chain, with its breaker. seen: shared by all links of a chain."""

    backend: Backend
    seen: SeenDimension
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def label(self) -> str:
        """How errors and logs call it."""
        return self.backend.target.label

    @property
    def account(self) -> str | None:
        """Whom a call is billed to."""
        return self.backend.account

    @property
    def context(self) -> int | None:
        """Tokens of the longest text it takes."""
        return self.backend.context

    def refusal(self) -> GatewayError | None:
        """Say why nothing may be sent to it at all, or None."""
        backend = self.backend
        needed = backend.key_requirement()
        credential = backend.credential() if needed.level is KeyLevel.REQUIRED else None
        if way := fix(backend.target, needed, credential, backend.key_url):
            return KeyMissing(f"a key is needed and there is none: {needed.reason}; {way}", target=self.label)
        return None

    def effects(self, request: EmbedRequest) -> Effects:
        """Do what the backend does, and then the checks that hold for every answer."""
        answer: EmbedAnswer = yield from self.backend.embed(request)
        vectors = answer.vectors
        if len(vectors) != len(request.texts):
            raise BadResponse(f"answered with {len(vectors)} vectors for {len(request.texts)} texts", target=self.label)
        if fault := vectors.fault():
            raise BadResponse(f"vectors that mean nothing: {fault}", target=self.label)
        expected = self.backend.model_space().dimension
        if expected is not None and vectors.dim != expected:
            raise BadResponse(
                f"vectors of {vectors.dim} numbers, and {self.backend.space_model()} has {expected}", target=self.label
            )
        shaped = _shaped(vectors, self.backend.options.dimensions, self.backend.options.normalize)
        if self.seen.value is None:
            self.seen.value = shaped.dim
        elif shaped.dim != self.seen.value:
            raise BadResponse(
                f"vectors of {shaped.dim} numbers where this chain gave {self.seen.value} before; "
                "is it another model, or has the model there changed?",
                target=self.label,
            )
        return replace(answer, vectors=shaped)


def _shaped(vectors: Vectors, dimensions: int | None, normalize: bool) -> Vectors:
    """Cut and scale here, not on the server: then every target does it the same way, or the spaces would differ."""
    if dimensions is not None:
        if dimensions > vectors.dim:
            raise InvalidRequest(f"dimensions={dimensions} is more than the model has ({vectors.dim})")
        if dimensions < vectors.dim:
            vectors = vectors.truncated(dimensions)
    return vectors.normalized() if normalize else vectors
