"""Request canaries: texts of known vectors within a caller's own request, so that each answer proves which model made it.

There may be several servers behind one address, not all of them with the same model: a check by a request of its own may reach
another one than the request that follows. A canary in the same request reaches the server that embeds the texts.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hf_gateway.errors import BatchTooLarge
from hf_gateway.spaces.fingerprint import CANARIES, LONG_CANARIES, Comparison, Row, Rows, compare
from hf_gateway.values.embedding import EmbedRequest, Role, VectorAnswer

QUERY_TEXTS = 32
"""Queries to one target after which the next request contains a canary; a request of documents always contains one."""
FULL_REQUESTS = 8
"""Consecutive requests that may be as large as the target accepts, without room for a canary; the next one is divided."""
MIN_BATCH_TEXTS = 4
"""Texts that a target must accept at once for canaries to be added."""
SHORT_TEXT_CHARS = 2000
"""If a text up to this length is refused beside a canary and accepted alone, the target accepts one text at once."""
MAX_IDENTITIES = 64
"""A target with more identities sends another one with each answer, so they prove nothing."""

Canary = tuple[Role, int]
"""A role, and the index of a text among the canaries."""
Identity = tuple[str | None, str | None]
"""What an answer says about its origin: the model, and the server."""


@dataclass
class CanaryRecord:
    """What the canaries in one target's requests have shown; modified under its guard's lock."""

    unproven: int = QUERY_TEXTS
    """Texts since the last canary; a target's first request always contains one."""
    full: int = 0
    """Consecutive requests that had no room for a canary."""
    turn: int = 0
    """Index of the next canary."""
    takes_one: bool = False
    """Whether the target has refused two texts at once."""
    identities: set[Identity] = field(default_factory=set)
    """The identities whose canaries were correct."""
    proven: dict[Canary, bytes] = field(default_factory=dict)
    """The last correct vector, as float32, of each canary: servers mostly return identical bytes again."""


def room_for(most: int | None, count: int) -> int | None:
    """Return how many texts of a caller fit into a request beside the canaries.

    Args:
        most: the target's maximum per request; None for any number.
        count: number of canaries.
    """
    return most if most is None or most < MIN_BATCH_TEXTS else most - count


def canaries_for(
    request: EmbedRequest, record: CanaryRecord, rows: Rows, *, both_roles: bool, most: int | None, always: bool = False
) -> tuple[Canary, ...]:
    """Choose the canaries for a request; an empty tuple if none is due.

    Args:
        request: what the caller wants embedded.
        record: what the target's canaries have shown so far; modified.
        rows: what the canaries' vectors must be.
        both_roles: whether a request for queries also gets a document as a canary, since the vectors of the two roles were
            measured by separate requests, which may have reached two servers.
        most: the target's maximum of texts per request.
        always: whether queries always get canaries, as documents do, since a cache would return a wrong vector again.

    Raises:
        BatchTooLarge: the request leaves no room for canaries, and is to be divided.
    """
    count = len(request.texts)
    due = always or request.role == "document" or record.unproven + count > QUERY_TEXTS
    if not due or record.takes_one or (most is not None and most < MIN_BATCH_TEXTS):
        record.unproven += count
        return ()
    roles: tuple[Role, ...] = (request.role, "document") if both_roles and request.role == "query" else (request.role,)
    if most is not None and count + len(roles) > most:
        record.unproven += count
        record.full += 1
        if count > most or record.full >= FULL_REQUESTS:
            raise BatchTooLarge(f"takes {most} texts at once, canaries among them", max_texts=most)
        return ()
    for _ in range(LONG_CANARIES):
        record.turn += 1
        chosen = tuple((role, record.turn % LONG_CANARIES) for role in roles)
        if all(rows.get(role, rows["document"])[place] for role, place in chosen):
            return chosen
    return ()


def with_canaries(request: EmbedRequest, canaries: Sequence[Canary]) -> EmbedRequest:
    """Append canaries to the texts of a request; the indexes in errors stay correct.

    Args:
        request: the caller's texts.
        canaries: what to append.
    """
    texts = [*request.texts, *(CANARIES[place] for _, place in canaries)]
    return replace(request, texts=texts, documents=sum(role != request.role for role, _ in canaries))


def without_canaries(answer: VectorAnswer[Any], canaries: Sequence[Canary]) -> tuple[VectorAnswer[Any], list[bytes]]:
    """Separate the vectors of the caller's texts from those of the canaries behind them, which are returned as float32.

    Args:
        answer: the target's answer.
        canaries: what was appended to the request.
    """
    vectors = answer.vectors
    first = len(vectors) - len(canaries)
    found = [vectors.comparable(index).tobytes() for index in range(first, len(vectors))]
    return replace(answer, vectors=vectors.head(first)), found


def difference(
    canaries: Sequence[Canary], found: Sequence[bytes], rows: Rows, record: CanaryRecord
) -> Comparison | None:
    """Compare the vectors of canaries with the expected ones; None if they are the same.

    Args:
        canaries: what was appended to the request.
        found: their vectors, as float32.
        rows: the vectors that all canaries must have.
        record: receives correct vectors.
    """
    if all(record.proven.get(canary) == data for canary, data in zip(canaries, found, strict=True)):
        return None
    reference: dict[Role, tuple[Row | None, ...]] = {}
    measured: dict[Role, tuple[Row | None, ...]] = {}
    for (role, place), data in zip(canaries, found, strict=True):
        reference[role] = (*reference.get(role, ()), rows.get(role, rows["document"])[place])
        measured[role] = (*measured.get(role, ()), tuple(array("f", data)))
    comparison = compare(reference, measured, cut=False)
    if not comparison.same:
        return comparison
    record.proven.update(zip(canaries, found, strict=True))
    return None
