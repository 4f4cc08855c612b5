"""The gateway of sparse embeddings: texts to weights of words, all of one space."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Self, Unpack

from hf_gateway.backends.sparse import SparseAbility
from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.runtime.driver import Clock, Transport
from hf_gateway.settings.fields import TargetsInput
from hf_gateway.settings.sparse import SparseKeywords, SparseSettings
from hf_gateway.tasks.sparse.candidate import SparseCandidate
from hf_gateway.tasks.sparse.service import SparseService
from hf_gateway.values.embedding import EmbedRequest, Role
from hf_gateway.values.sparse import SparseResult
from hf_gateway.values.target import Target
from hf_gateway.vector_gateway import VectorGateway


class SparseGateway(VectorGateway):
    """The gateway of `Gateway(..., task="sparse")`: texts to sparse vectors, always in one vector space.

    Example:
        ```python
        from hf_gateway import SparseGateway

        with SparseGateway(targets=["bm25"]) as gateway:
            documents = gateway.embed(["try and except", "list comprehensions"]).vectors
            query = gateway.embed(["catch with except"], role="query").vectors[0]
            print([query.dot(document) for document in documents])
        ```
    """

    settings_class: ClassVar[type[SparseSettings]] = SparseSettings
    ability_class: ClassVar[type[SparseAbility]] = SparseAbility
    settings: SparseSettings
    candidates: tuple[SparseCandidate, ...]

    if TYPE_CHECKING:  # otherwise the type checker would assume the default of `Gateway`

        def __new__(
            cls,
            model: str | None = None,
            targets: TargetsInput = None,
            *,
            transport: Transport | None = None,
            clock: Clock | None = None,
            **settings: Unpack[SparseKeywords],
        ) -> Self:
            """Build the chain; nothing is loaded or connected to."""

    def _build_candidates(self, abilities: Sequence[SparseAbility], given: Sequence[Target]) -> list[SparseCandidate]:
        guard = self._build_guard(abilities)
        return [SparseCandidate(ability, alone=len(given) == 1, guard=guard) for ability in abilities]

    def _build_service(self) -> None:
        self._service = SparseService(self._chain, self._watch, self._finish, lambda: self.space)

    def embed(self, texts: Iterable[str], *, role: Role = "document") -> SparseResult:
        """Embed n texts, in order, into n sparse vectors.

        Args:
            texts: any iterable of strings.
            role: "document", or "query" for texts that are searched for.

        Raises:
            InvalidRequest: a text is not a string, is empty, or cannot be encoded in UTF-8; nothing was sent.
            ContextOverflow: a text is longer than the model accepts, unless `truncate`.
            GatewayError: the target's error, or AllTargetsFailed with one error per target.
        """
        request = EmbedRequest.of(texts, role, self.settings.truncate)
        result: SparseResult = self._run(self._service.steps(request))
        return result

    async def aembed(self, texts: Iterable[str], *, role: Role = "document") -> SparseResult:
        """Like `embed`, without blocking the event loop.

        Args:
            texts: any iterable of strings.
            role: "document", or "query" for texts that are searched for.
        """
        request = EmbedRequest.of(texts, role, self.settings.truncate)
        result: SparseResult = await self._arun(self._service.steps(request))
        return result

    def _finish(self, result: SparseResult, attempt_log: AttemptLog) -> None:
        self._warn_of_fallback("sparse embeddings served by", ", ".join(result.served_by), attempt_log)
        self._observed(result)
