"""Measuring a target: the canary texts embedded in both roles."""

from collections.abc import Generator
from typing import Any, Protocol

from hf_gateway.embedding import EmbedAnswer, EmbedRequest, Role
from hf_gateway.errors import BadResponse, BatchTooLarge, ContextOverflow
from hf_gateway.fingerprint import CANARIES, LONG, REFUSED, Comparison, Row, compare
from hf_gateway.space import VectorSpace
from hf_gateway.usage import Usage

Measuring = Generator[Any, Any, Any]


class Measurable(Protocol):
    """A target as the guard sees it."""

    @property
    def label(self) -> str:
        """How errors and logs call it."""

    @property
    def space(self) -> VectorSpace:
        """The space that is declared for it."""

    @property
    def authoritative(self) -> bool:
        """Whether the model's own files make its vectors, in this process."""

    @property
    def one_role(self) -> bool:
        """Whether queries and documents get the same vectors."""

    @property
    def mixes_roles(self) -> bool:
        """Whether one request may have texts of both roles."""

    @property
    def most_texts(self) -> int | None:
        """Texts of one request at most; None for any number."""

    def embed_shaped(self, request: EmbedRequest) -> Measuring:
        """Embed as for a caller; returns an `EmbedAnswer`."""

    def served_space(self) -> Measuring:
        """Ask the target which space it serves; returns a `VectorSpace`, or None where it does not say."""


def all_places(*, long: bool) -> list[list[int]]:
    """Return the places of the canaries, in batches. long: the one that shows where texts are cut, too."""
    return [list(range(LONG)), *([[LONG]] if long else [])]


def measured(target: Measurable, batches: list[list[int]], used: list[Usage], *, repeat: bool) -> Measuring:
    """Embed the canaries at these places in both roles.

    Args:
        target: what is measured.
        batches: places of canaries that go together; a target that takes fewer at once gets them in parts.
        used: gets the tokens.
        repeat: have every request after the first repeat a canary of the first one, since servers with several models behind
            one address would otherwise give each a part.

    Returns:
        `Rows`, or the `Comparison` of the repeated canary where it came back with another vector.
    """
    found: dict[Role, tuple[Row | None, ...]] = {}
    roles: tuple[Role, ...] = ("document",) if target.one_role else ("document", "query")
    for role in roles:
        rows: list[Row | None] = [None] * len(CANARIES)
        waiting = list(batches)
        while waiting:
            first = found.get("document", tuple(rows))[0]
            repeats = repeat and first is not None and (role == "document" or target.mixes_roles)
            outcome = yield from _batch(target, role, waiting, first if repeats else None, used)
            if isinstance(outcome, Comparison):
                return outcome
            for place, row in outcome.items():
                rows[place] = row
        if rows[0] is None:
            raise BadResponse("takes not even one word at once", target=target.label)
        found[role] = tuple(rows)
    return {"document": found["document"], "query": found.get("query", found["document"])}


def _batch(target: Measurable, role: Role, waiting: list[list[int]], first: Row | None, used: list[Usage]) -> Measuring:
    """Embed the next batch; returns rows by place, none where it is to be cut, or a `Comparison`.

    first: the vector that the first canary must have again as a document; None for no repetition.
    """
    places = waiting.pop(0)
    texts = [CANARIES[place] for place in places]
    repeated = [CANARIES[0]] if first is not None else []
    request = EmbedRequest([*texts, *repeated], role, truncate=True, documents=len(repeated))
    try:
        answer: EmbedAnswer = yield from target.embed_shaped(request)
    except BatchTooLarge as limit:
        if len(places) > 1:
            parts = EmbedRequest(texts).split(limit) or []
            waiting[:0] = [[places[texts.index(text)] for text in part.texts] for part in parts]
            return {}
        if not repeated:
            return {}
        try:
            answer = yield from target.embed_shaped(EmbedRequest(texts, role, truncate=True))
        except BatchTooLarge:
            return {}
        except ContextOverflow:
            if places != [LONG]:
                raise
            return {LONG: REFUSED}
        repeated = []
    except ContextOverflow:
        if places != [LONG]:
            raise
        return {LONG: REFUSED}
    used.append(answer.usage)
    rows = [tuple(row) for row in answer.vectors]
    if repeated:
        comparison = compare({"document": (first,)}, {"document": (rows.pop(),)}, cut=False)
        if not comparison.same:
            return comparison
    return dict(zip(places, rows, strict=True))
