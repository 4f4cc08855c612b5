"""The gateway of reranking: sorts documents by how well they answer a query."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Self, Unpack

from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.gateway import Gateway
from hf_gateway.runtime.driver import Clock, Transport
from hf_gateway.settings.fields import TargetsInput
from hf_gateway.settings.rerank import RerankKeywords, RerankSettings
from hf_gateway.tasks.rerank.candidate import RerankCandidate
from hf_gateway.tasks.rerank.service import RerankService
from hf_gateway.values.rerank import RerankRequest, RerankResult
from hf_gateway.values.target import Target


class RerankGateway(Gateway):
    """The gateway of `Gateway(..., task="rerank")`: sorts documents by how well they answer a query.

    Example:
        ```python
        from hf_gateway import RerankGateway

        with RerankGateway(targets=["lexical"]) as gateway:
            result = gateway.rerank("catch an exception", ["try and except", "list comprehensions"], top_n=1)
            print(result[0].document, result.scale, result.served_by)
        ```
    """

    settings_class: ClassVar[type[RerankSettings]] = RerankSettings
    ability_class: ClassVar[type[RerankAbility]] = RerankAbility
    settings: RerankSettings
    candidates: tuple[RerankCandidate, ...]

    if TYPE_CHECKING:  # otherwise the type checker would assume the default of `Gateway`

        def __new__(
            cls,
            model: str | None = None,
            targets: TargetsInput = None,
            *,
            transport: Transport | None = None,
            clock: Clock | None = None,
            **settings: Unpack[RerankKeywords],
        ) -> Self:
            """Build the chain; nothing is loaded or connected to."""

    def _build_candidates(self, abilities: Sequence[RerankAbility], given: Sequence[Target]) -> list[RerankCandidate]:
        return [RerankCandidate(ability, alone=len(given) == 1) for ability in abilities]

    def _build_service(self) -> None:
        self._service = RerankService(self._chain, self._watch, self._finish, self.settings.scale)

    def rerank(self, query: str, documents: Iterable[str], *, top_n: int | None = None) -> RerankResult:
        """Score n documents by a query, and return the best ones, best first.

        All scores of one result are of one target and one scale; scores of two results can be compared only if both name the same
        target, and never if their scale is "bm25".

        Args:
            query: what is searched for.
            documents: any iterable of strings.
            top_n: how many to return; by default the setting, and all without one.

        Raises:
            InvalidRequest: a document is not a string, is empty, or cannot be encoded in UTF-8; nothing was sent.
            ContextOverflow: a document is longer than the model accepts, unless `truncate`.
            GatewayError: the target's error, or AllTargetsFailed with one error per target.
        """
        result: RerankResult = self._run(self._service.steps(self._request(query, documents, top_n)))
        return result

    async def arerank(self, query: str, documents: Iterable[str], *, top_n: int | None = None) -> RerankResult:
        """Like `rerank`, without blocking the event loop.

        Args:
            query: what is searched for.
            documents: any iterable of strings.
            top_n: how many to return.
        """
        result: RerankResult = await self._arun(self._service.steps(self._request(query, documents, top_n)))
        return result

    def _request(self, query: str, documents: Iterable[str], top_n: int | None) -> RerankRequest:
        settings = self.settings
        return RerankRequest.of(query, documents, settings.truncate, settings.top_n if top_n is None else top_n)

    def _finish(self, result: RerankResult, attempt_log: AttemptLog) -> None:
        self._warn_of_fallback("ranked by", ", ".join(result.served_by), attempt_log)
        self._observed(result)
