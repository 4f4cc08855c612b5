"""Measures a target: embeds the canary texts in both roles."""

from collections.abc import Generator, Mapping
from typing import Any, Protocol

from hf_gateway.errors import BadResponse, BatchTooLarge, ContextOverflow
from hf_gateway.spaces.fingerprint import CANARIES, LONG_CANARIES, REFUSED, Comparison, Row, compare
from hf_gateway.values.embedding import EmbedRequest, Role, VectorAnswer
from hf_gateway.values.usage import Usage
from hf_gateway.values.vector_space import VectorSpace

Measuring = Generator[Any, Any, Any]


class Measurable(Protocol):
    """A target as the guard sees it."""

    @property
    def label(self) -> str:
        """The target's name in errors and logs."""

    @property
    def space(self) -> VectorSpace:
        """The space declared for it."""

    @property
    def authoritative(self) -> bool:
        """Whether the model's own files make its vectors, in this process."""

    @property
    def one_role(self) -> bool:
        """Whether queries and documents get the same vectors."""

    @property
    def mixes_roles(self) -> bool:
        """Whether one request may contain texts of both roles."""

    @property
    def most_texts(self) -> int | None:
        """Maximum texts per request; None for any number."""

    @property
    def reported_space(self) -> VectorSpace | None:
        """The space that its answers so far have reported; None if they report none."""

    def embed_shaped(self, request: EmbedRequest) -> Measuring:
        """Embed as for a caller; returns a `VectorAnswer`."""

    def served_space(self) -> Measuring:
        """Ask the target which space it serves; returns a `VectorSpace`, or None if it does not report one."""


def all_places(*, long: bool) -> list[list[int]]:
    """Return the indexes of the canaries, in batches. long: include the one that shows where texts are truncated."""
    return [list(range(LONG_CANARIES)), *([[LONG_CANARIES]] if long else [])]


def measure(target: Measurable, batches: list[list[int]], used: list[Usage], *, repeat: bool) -> Measuring:
    """Embed the canaries at these places in both roles.

    With its first answer a target may report its space, and get other requests from then on: it is then measured again.

    Args:
        target: what is measured.
        batches: indexes of canaries that are sent together; a target that accepts fewer at once gets them in parts.
        used: receives the usage of each request.
        repeat: let every request after the first repeat a document of the first one, and, for queries, a query of the first
            one for those: otherwise several servers with different models behind one address could each answer a part.

    Returns:
        `Rows`, or the `Comparison` of the repeated canary if it came back with another vector.
    """
    while True:
        reported = target.reported_space
        rows = yield from _measure(target, batches, used, repeat)
        if target.reported_space == reported:
            return rows


def _measure(target: Measurable, batches: list[list[int]], used: list[Usage], repeat: bool) -> Measuring:
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
    """Embed the next batch; returns rows by index, an empty dict if it is to be divided, or a `Comparison`.

    repeats: the vectors that the first canary must have again, by role; this batch's role comes first.
    """
    places = waiting.pop(0)
    texts = [CANARIES[place] for place in places]
    repeated = [CANARIES[0]] * len(repeats)
    documents = sum(each != role for each in repeats)
    request = EmbedRequest([*texts, *repeated], role, truncate=True, documents=documents)
    try:
        answer: VectorAnswer[Any] = yield from target.embed_shaped(request)
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
    rows = [tuple(answer.vectors.comparable(index)) for index in range(len(answer.vectors))]
    if repeats:
        again = {each: (row,) for each, row in zip(repeats, rows[len(places) :], strict=True)}
        comparison = compare({each: (row,) for each, row in repeats.items()}, again, cut=False)
        if not comparison.same:
            return comparison
    return dict(zip(places, rows[: len(places)], strict=True))
