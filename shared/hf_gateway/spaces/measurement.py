"""Measuring a target: the canary texts embedded in both roles."""

from collections.abc import Generator, Mapping
from typing import Any, Protocol

from hf_gateway.errors import BadResponse, BatchTooLarge, ContextOverflow
from hf_gateway.spaces.fingerprint import CANARIES, LONG_CANARIES, REFUSED, Comparison, Row, compare
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest, Role
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace

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
    return [list(range(LONG_CANARIES)), *([[LONG_CANARIES]] if long else [])]


def measure(target: Measurable, batches: list[list[int]], used: list[Usage], *, repeat: bool) -> Measuring:
    """Embed the canaries at these places in both roles.

    Args:
        target: what is measured.
        batches: places of canaries that go together; a target that takes fewer at once gets them in parts.
        used: gets the tokens.
        repeat: have every request after the first repeat a document of the first one, and, for queries, a query of the first
            one for those: servers with several models behind one address would otherwise give each a part.

    Returns:
        `Rows`, or the `Comparison` of the repeated canary where it came back with another vector.
    """
    found: dict[Role, tuple[Row | None, ...]] = {}
    roles: tuple[Role, ...] = ("document",) if target.one_role else ("document", "query")
    for role in roles:
        rows: list[Row | None] = [None] * len(CANARIES)
        waiting = list(batches)
        while waiting:
            repeats: dict[Role, Row] = {}
            if repeat and rows[0] is not None:
                repeats[role] = rows[0]
            if repeat and role == "query" and target.mixes_roles and (first := found["document"][0]) is not None:
                repeats["document"] = first
            outcome = yield from _batch(target, role, waiting, repeats, used)
            if isinstance(outcome, Comparison):
                return outcome
            for place, row in outcome.items():
                rows[place] = row
        if rows[0] is None:
            raise BadResponse("takes not even one word at once", target=target.label)
        found[role] = tuple(rows)
    return {"document": found["document"], "query": found.get("query", found["document"])}


def _batch(
    target: Measurable, role: Role, waiting: list[list[int]], repeats: Mapping[Role, Row], used: list[Usage]
) -> Measuring:
    """Embed the next batch; returns rows by place, none where it is to be cut, or a `Comparison`.

    repeats: the vectors that the first canary must have again, by role; this batch's role comes first.
    """
    places = waiting.pop(0)
    texts = [CANARIES[place] for place in places]
    repeated = [CANARIES[0]] * len(repeats)
    documents = sum(each != role for each in repeats)
    request = EmbedRequest([*texts, *repeated], role, truncate=True, documents=documents)
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
            if places != [LONG_CANARIES]:
                raise
            return {LONG_CANARIES: REFUSED}
        repeats = {}
    except ContextOverflow:
        if places != [LONG_CANARIES]:
            raise
        return {LONG_CANARIES: REFUSED}
    used.append(answer.usage)
    rows = [tuple(row) for row in answer.vectors]
    if repeats:
        again = {each: (row,) for each, row in zip(repeats, rows[len(places) :], strict=True)}
        comparison = compare({each: (row,) for each, row in repeats.items()}, again, cut=False)
        if not comparison.same:
            return comparison
    return dict(zip(places, rows[: len(places)], strict=True))
