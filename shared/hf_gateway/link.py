"""Links: a backend as the chain sees it, with its breaker and the checks that hold for every answer."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hf_gateway.backends.base import Backend
from hf_gateway.breaker import Breaker
from hf_gateway.chat import AnswerBuilder, ChatRequest
from hf_gateway.drive import Effects
from hf_gateway.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.errors import (
    AttemptTimedOut,
    BadResponse,
    BatchTooLarge,
    ConnectFailed,
    GatewayError,
    InvalidRequest,
    KeyMissing,
    Overloaded,
    RateLimited,
    StreamBroken,
)
from hf_gateway.guard import Guard
from hf_gateway.key_policy import KeyLevel, missing_key_hint
from hf_gateway.notices import notice_once
from hf_gateway.options import EmbedOptions
from hf_gateway.secret import EnvKey
from hf_gateway.space import VectorSpace
from hf_gateway.spaces.standing import SpaceCheck
from hf_gateway.tasks.chat.answer_checks import answer_failure, notes_on
from hf_gateway.usage import Usage
from hf_gateway.values.wording import quantity
from hf_gateway.vectors import Vectors


@dataclass
class SeenDimension:
    """The dimension of a chain's first vectors, which all later ones must have: another would spoil an index."""

    value: int | None = None


@dataclass(eq=False)
class TargetCandidate:
    """A backend in the chain, with its breaker. alone: there is no other target; refused: is told that it has too much to do."""

    backend: Backend
    breaker: Breaker = field(default_factory=Breaker)
    alone: bool = True
    refused: Callable[[], None] | None = None

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
        """Tokens of the longest text, or conversation, that it takes."""
        return self.backend.context

    @property
    def space_check(self) -> SpaceCheck | None:
        """How its vectors stand to the space's fingerprint; None where it makes none, or none was measured."""
        return None

    def refusal(self) -> GatewayError | None:
        """Say why nothing may be sent to it at all, or None."""
        backend = self.backend
        if isinstance(bound := backend.target.credential, EnvKey) and bound.refusal:
            return KeyMissing(bound.refusal, target=self.label)
        needed = backend.key_requirement()
        credential = backend.credential() if needed.level is KeyLevel.REQUIRED else None
        if way := missing_key_hint(backend.target, needed, credential, backend.key_url, alone=self.alone):
            return KeyMissing(f"a key is needed and there is none: {needed.reason}; {way}", target=self.label)
        return None

    def effects(self, payload: Any) -> Effects:
        """Ask it, and let no error out that quotes the key: servers do, also inside a 200."""
        try:
            return (yield from self.answer(payload))
        except GatewayError as failure:
            failure.message = self._without_key(failure.message)
            failure.args = (failure.message,)
            if self.refused is not None and isinstance(failure, RateLimited | Overloaded):
                self.refused()
            raise

    def _without_key(self, text: str) -> str:
        credential = self.backend.credential()
        return text if credential is None else credential.secret.scrub(text)

    def answer(self, payload: Any) -> Effects:
        """Do what the backend does, and the checks that hold for every answer."""
        raise NotImplementedError


@dataclass(eq=False)
class EmbeddingCandidate(TargetCandidate):
    """For embeddings. seen: shared by all links of a chain; guard: whose vectors may be used."""

    seen: SeenDimension = field(default_factory=SeenDimension)
    guard: Guard | None = None

    @property
    def space(self) -> VectorSpace:
        """The space that is declared for it."""
        return self.backend.space()

    @property
    def authoritative(self) -> bool:
        """Whether the model's own files make its vectors, in this process."""
        return self.backend.authoritative

    @property
    def one_role(self) -> bool:
        """Whether queries and documents get the same vectors."""
        return self.backend.one_role

    @property
    def mixes_roles(self) -> bool:
        """Whether one request may have texts of both roles."""
        return self.backend.mixes_roles

    @property
    def most_texts(self) -> int | None:
        """Texts of one request at most, canaries among them; None for any number."""
        return self.backend.batch_texts

    @property
    def batch_texts(self) -> int | None:
        """Texts of a caller's in one request at most, beside the canaries; None for any number."""
        return self.guard.batch_texts(self) if self.guard else self.most_texts

    @property
    def space_check(self) -> SpaceCheck | None:
        """How its vectors stand to the space's fingerprint, as far as it is known."""
        return self.guard.space_check(self) if self.guard else None

    def refusal(self) -> GatewayError | None:
        """Say why nothing may be sent to it at all: a missing key, another vector space."""
        return super().refusal() or (self.guard.refusal(self) if self.guard else None)

    def answer(self, request: EmbedRequest) -> Effects:
        """Do what the backend does, and the checks that hold for every answer; the guard's before the first and after each."""
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
        return self.backend.served_space()

    def embed_shaped(self, request: EmbedRequest) -> Effects:
        """Embed, check what came, and cut and scale it as the chain wants."""
        try:
            answer: EmbedAnswer = yield from self.backend.embed(request)
        except BatchTooLarge as limit:
            self.backend.note_batch_limit(limit, request)
            raise
        vectors = answer.vectors
        if len(vectors) != len(request.texts):
            wrong = f"{quantity(len(vectors), 'vector')} for {quantity(len(request.texts), 'text')}"
            raise BadResponse(f"answered with {wrong}", target=self.label)
        if fault := vectors.fault():
            raise BadResponse(f"vectors that mean nothing: {fault}", target=self.label)
        expected = self.backend.model_space().dimension
        if expected is not None and vectors.dim != expected:
            raise BadResponse(
                f"vectors of {vectors.dim} numbers, and {self.backend.space_model()} has {expected}", target=self.label
            )
        return replace(answer, vectors=with_dimensions(vectors, self.backend.embed_options))


def _check_vectors(vectors: Vectors, request: EmbedRequest) -> str | None:
    """Say what no model does: one and the same vector for texts of which no two are alike.

    Many models see neither case nor accents nor blanks, and where texts are cut they may differ in what nobody read.
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


@dataclass(eq=False)
class ChatCandidate(TargetCandidate):
    """For chat. inherits: the target names no model of its own, so that a call's model is meant for it, too."""

    inherits: bool = True

    def answer(self, request: ChatRequest) -> Effects:
        """Do what the backend does; a stream that did not say why it ended is an error, never a shorter answer."""
        builder = AnswerBuilder()
        model = request.model if self.inherits and request.model else self.backend.target.model
        try:
            yield from self.backend.chat(replace(request, model=model), builder)
        except (AttemptTimedOut, ConnectFailed) as failure:
            if builder.has_content:
                raise StreamBroken(f"the answer broke off: {failure.message}", target=self.label) from None
            raise
        if (failed := answer_failure(request, builder)) is not None:
            failed.target = self.label
            raise failed
        answer = builder.answer()
        notes = tuple(map(self._without_key, notes_on(answer, model, streamed=request.stream)))
        for note in notes:
            notice_once(f"{self.label}: {note}")
        return replace(answer, model=answer.model or model, notes=notes)


def with_dimensions(vectors: Vectors, options: EmbedOptions) -> Vectors:
    """Cut and scale here, not on the server: then every target does it the same way, or the spaces would differ."""
    dimensions = options.dimensions
    if dimensions is not None:
        if dimensions > vectors.dim:
            raise InvalidRequest(f"dimensions={dimensions} is more than the model has ({vectors.dim})")
        if dimensions < vectors.dim:
            vectors = vectors.truncated(dimensions)
    return vectors.normalized() if options.normalize else vectors
