"""A target for vectors, dense or sparse, whose vector space is checked before the first one and after each answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from hf_gateway.backends.vectors import VectorAbility
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.errors import BadResponse, GatewayError
from hf_gateway.runtime.effects import Effects
from hf_gateway.spaces.fingerprint import CANARIES, Rows
from hf_gateway.spaces.guard import Guard
from hf_gateway.spaces.space_check import SpaceCheck
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.values.embedding import EmbedRequest, VectorAnswer
from hf_gateway.values.text import utf8_bytes
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.values.wording import quantity

CHECK_TOKENS = 2 * sum(map(utf8_bytes, CANARIES))
"""Tokens of the texts that check a target's vectors, in both roles: any request may be the one that pays for them."""
AnswerT = TypeVar("AnswerT", bound=VectorAnswer[Any])


@dataclass(eq=False)
class VectorCandidate(TargetCandidate, Generic[AnswerT]):
    """A target for vectors. A task's class adds the checks of its vectors in `shaped` and `check`."""

    ability: VectorAbility
    """Its ability."""
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
    def reported_space(self) -> VectorSpace | None:
        """The space that its answers so far have reported; None if they report none."""
        return self.ability.reported_space

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
        answer: AnswerT = yield from (self.guard.embed(self, request) if self.guard else self.embed_shaped(request))
        if checked is not None and answer.usage.input_tokens is not None:
            answer = replace(answer, usage=answer.usage + checked)
        self.check(answer, request)
        if self.guard is not None:
            answer = yield from self.guard.check_answer(self, answer)
        return answer

    def rows_by_files(
        self,
        files: ModelFiles,  # noqa: ARG002 - for subclasses
        options: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[Rows, Mapping[str, Rows]] | None:
        """Compute the canaries' vectors with the model's files, and with one setting changed, by the words for that setting.

        None for a task that names no causes.

        Args:
            files: the model's files.
            options: options of the engine.

        Raises:
            GatewayError: the model does not run here.
        """
        return None

    def served_space(self) -> Effects:
        """Ask the target which space it serves."""
        return self.ability.served_space()

    def embed_shaped(self, request: EmbedRequest) -> Effects:
        """Embed, check the answer, and bring its vectors into the form of the chain's settings."""
        answer: AnswerT = yield from self.ability.noting_limit(request, self.ability.embed(request))
        if len(answer.vectors) != len(request.texts):
            wrong = f"{quantity(len(answer.vectors), 'vector')} for {quantity(len(request.texts), 'text')}"
            raise BadResponse(f"answered with {wrong}", target=self.label)
        return self.shaped(answer)

    def shaped(self, answer: AnswerT) -> AnswerT:
        """Return an answer in the form of the chain's settings. Raises BadResponse for vectors that no such model makes."""
        raise NotImplementedError

    def check(self, answer: AnswerT, request: EmbedRequest) -> None:
        """Raise BadResponse for an answer that does not fit to what the chain returned before.

        Args:
            answer: the answer, without canaries.
            request: the caller's texts.
        """
        raise NotImplementedError
